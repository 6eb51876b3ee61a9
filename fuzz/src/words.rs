//! What the script and the model say, in the crate's words.

use std::time::Duration;

use tidings::{
    ConnectionId, EndReason, Frame, GapReason, GenericBroadcaster, History, LagPolicy,
    RegisterError, Stats,
};

use crate::model::{Counted, Reason, Refused};
use crate::script::{Policy, Settings, USERS};

pub(crate) fn build<E>(settings: &Settings) -> GenericBroadcaster<E> {
    let millis = Duration::from_millis;
    let history = settings.history.as_ref().map(|kept| {
        let history = History::new(kept.events)
            .bytes(kept.bytes)
            .age(kept.age.map(millis))
            .linger(millis(kept.linger))
            .away_users(kept.away_users)
            .away_bytes(kept.away_bytes);
        if kept.keeps_for_unconnected {
            history.keep_for_unconnected()
        } else {
            history
        }
    });
    let mut builder = GenericBroadcaster::builder()
        .ring_capacity(settings.capacity)
        .connections_per_user(settings.per_user)
        .total_connections(settings.total)
        .history(history)
        .lag_policy(policy_of(settings.policy));
    if let Some(keys) = settings.coalesce_keys {
        builder = builder.coalesce_keys(keys);
    }
    if let Some((behind, time)) = settings.patience {
        builder = builder.patience(behind, millis(time));
    }
    builder.build().expect("the settings are valid")
}

pub(crate) fn user_of(choice: u8) -> usize {
    usize::from(choice) % USERS
}

pub(crate) fn connection_id(connection: u8) -> ConnectionId {
    connection.to_string().into()
}

pub(crate) fn policy_of(policy: Policy) -> LagPolicy {
    match policy {
        Policy::Gap => LagPolicy::Gap,
        Policy::Disconnect => LagPolicy::Disconnect,
        Policy::Coalesce => LagPolicy::Coalesce,
        Policy::End => LagPolicy::End,
    }
}

pub(crate) fn reason_of(reason: GapReason) -> Reason {
    match reason {
        GapReason::Lagged => Reason::Lagged,
        GapReason::Evicted => Reason::Evicted,
        GapReason::Epoch => Reason::Epoch,
        other => panic!("there is one node: {other:?}"),
    }
}

pub(crate) fn refused_of(error: RegisterError) -> Refused {
    match error {
        RegisterError::ShuttingDown { .. } => Refused::ShuttingDown,
        RegisterError::TotalFull { .. } => Refused::TotalFull,
        RegisterError::UserFull { .. } => Refused::UserFull,
        RegisterError::ConnectionIdInUse => Refused::IdInUse,
        other => panic!("not known: {other:?}"),
    }
}

pub(crate) fn id_in(frame: &Frame) -> Option<&str> {
    frame
        .fields()
        .find(|(name, _)| *name == "id")
        .map(|(_, id)| id)
}

pub(crate) fn counted_of(stats: &Stats) -> Counted {
    Counted {
        shutting_down: stats.refusals.shutting_down,
        total_full: stats.refusals.total_full,
        user_full: stats.refusals.user_full,
        id_in_use: stats.refusals.id_in_use,
        behind: stats.ended.get(EndReason::Behind),
        overdue: stats.ended.get(EndReason::Deadline),
        gaps_lagged: stats.gaps.lagged,
        gaps_evicted: stats.gaps.evicted,
        gaps_epoch: stats.gaps.epoch,
        lagged: stats.lagged,
        evicted: stats.evicted,
        healed: stats.healed,
        replayed: stats.replayed,
        deliveries: stats.deliveries,
    }
}
