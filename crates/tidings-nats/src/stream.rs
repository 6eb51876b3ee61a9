//! The stream that a log is: how it is made, what of it may differ, and which log it is.

use async_nats::jetstream;
use async_nats::jetstream::ErrorCode;
use async_nats::jetstream::context::{CreateStreamErrorKind, GetStreamErrorKind};
use async_nats::jetstream::stream::{
    ClusterInfo, Config, DiscardPolicy, Info, Republish, RetentionPolicy, StorageType,
};

use super::error::ConnectError;
use super::settings::{Log as Settings, Storage};
use super::subjects::{Subjects, fnv1a};
use tidings::backplane::Position;

/// The server that leads a stream, and each of the others, and whether it is away.
pub(super) type Servers = (Option<String>, Vec<(String, bool)>);

pub(super) async fn find_or_make(
    context: &jetstream::Context,
    wanted: &Config,
) -> Result<Info, ConnectError> {
    let other = |error: async_nats::Error| ConnectError::Log(error);
    match context.get_stream(&wanted.name).await {
        Ok(stream) => {
            let info = stream.cached_info().clone();
            same(&info.config, wanted)?;
            Ok(info)
        }
        Err(error) if is_missing(&error.kind()) => {
            // Another node may make it at the same time, which is no error: it makes the same.
            let made = context.create_stream(wanted.clone()).await;
            let stream = made.map_err(|error| match error.kind() {
                CreateStreamErrorKind::JetStream(error)
                    if error.error_code() == ErrorCode::STREAM_NAME_EXIST =>
                {
                    ConnectError::Contradiction("another was made meanwhile")
                }
                _ => other(error.into()),
            })?;
            Ok(stream.cached_info().clone())
        }
        Err(error) => Err(other(error.into())),
    }
}

pub(super) fn config(settings: &Settings, subjects: &Subjects) -> Config {
    Config {
        name: settings.stream.clone(),
        subjects: vec![subjects.all_log()],
        storage: match settings.storage {
            Storage::File => StorageType::File,
            Storage::Memory => StorageType::Memory,
        },
        num_replicas: settings.replicas,
        max_age: settings.max_age,
        max_messages: -1,
        max_bytes: -1,
        max_message_size: -1,
        max_consumers: -1,
        max_messages_per_subject: settings.max_per_user.into(),
        discard: DiscardPolicy::Old,
        retention: RetentionPolicy::Limits,
        duplicate_window: settings.duplicate_window,
        // For batches. A stream without it is read message by message.
        allow_direct: true,
        republish: Some(Republish {
            source: subjects.all_log(),
            destination: subjects.all_live(),
            headers_only: false,
        }),
        ..Config::default()
    }
}

/// What an operator may change holds: replicas, age, numbers, a bound in bytes, who may delete. What the promises rest on must
/// not differ.
fn same(found: &Config, wanted: &Config) -> Result<(), ConnectError> {
    let republishes = |config: &Config| {
        let republish = config.republish.as_ref()?;
        let ends = (republish.source.clone(), republish.destination.clone());
        (!republish.headers_only).then_some(ends)
    };
    let contradiction = [
        (found.subjects != wanted.subjects, "its subjects"),
        (
            republishes(found) != republishes(wanted),
            "what it republishes",
        ),
        (found.storage != wanted.storage, "its storage"),
        (found.retention != wanted.retention, "its retention"),
        (found.discard != wanted.discard, "what it discards"),
        (found.no_ack || found.sealed, "that it confirms messages"),
    ];
    match contradiction.into_iter().find(|(differs, _)| *differs) {
        Some((_, what)) => Err(ConnectError::Contradiction(what)),
        None => Ok(()),
    }
}

pub(super) fn end_of(info: &Info) -> Position {
    Position {
        epoch: Epoch::of(&info.config).hash(info),
        offset: info.state.last_sequence,
    }
}

/// The cluster that has the stream. None if its server is alone, which may call itself the leader, of a cluster without a name.
pub(super) fn cluster_of(info: &Info) -> Option<&ClusterInfo> {
    info.cluster.as_ref().filter(|of| of.name.is_some())
}

pub(super) fn servers_of(info: &Info) -> Servers {
    let Some(cluster) = cluster_of(info) else {
        return (None, Vec::new());
    };
    let followers = cluster.replicas.iter();
    let mut followers: Vec<(String, bool)> = followers
        .map(|peer| (peer.name.clone(), peer.offline))
        .collect();
    followers.sort();
    (cluster.leader.clone(), followers)
}

/// How often the stream has come back without what it had. It stands in its description, which is what a stream has room for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Epoch(u64);

impl Epoch {
    const KEY: &str = "tidings-epoch=";

    pub(super) fn of(config: &Config) -> Self {
        let mut words = config.description.iter().flat_map(|text| text.split(' '));
        let number = words.find_map(|word| word.strip_prefix(Self::KEY)?.parse().ok());
        Self(number.unwrap_or(0))
    }

    /// Every node computes the same. A stream that is made anew is made at another time.
    fn hash(self, info: &Info) -> u64 {
        let (name, created) = (&info.config.name, info.created.unix_timestamp_nanos());
        let identity = match self.0 {
            0 => format!("{name} {created}"),
            number => format!("{name} {created} {number}"),
        };
        fnv1a(identity.as_bytes())
    }

    /// The description with the next one, and what else an operator has written there.
    pub(super) fn next_description(self, config: &Config) -> String {
        let text = config.description.as_deref().unwrap_or_default();
        let words = text.split(' ').filter(|word| !word.starts_with(Self::KEY));
        let mut words: Vec<&str> = words.filter(|word| !word.is_empty()).collect();
        let next = format!("{}{}", Self::KEY, self.0.saturating_add(1));
        words.push(&next);
        words.join(" ")
    }
}

fn is_missing(error: &GetStreamErrorKind) -> bool {
    matches!(error, GetStreamErrorKind::JetStream(error) if error.error_code() == ErrorCode::STREAM_NOT_FOUND)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_epoch_of_a_stream_that_lost_something_stands_in_its_description() {
        let described = |text: &str| Config {
            description: Some(text.to_owned()),
            ..Config::default()
        };
        assert_eq!(Epoch::of(&Config::default()), Epoch(0));
        let config = described("of the chat");
        assert_eq!(Epoch::of(&config), Epoch(0));
        let next = Epoch(0).next_description(&config);
        assert_eq!(next, "of the chat tidings-epoch=1");
        let config = described(&next);
        assert_eq!(Epoch::of(&config), Epoch(1));
        assert_eq!(
            Epoch(1).next_description(&config),
            "of the chat tidings-epoch=2"
        );
    }
}
