//! The other hubs that share these events.

use std::io;

use tidings::Builder;

/// Over which engine they are shared.
#[derive(Debug, Clone)]
#[cfg_attr(
    not(all(feature = "nats", feature = "redis")),
    allow(dead_code, reason = "an engine that is not compiled in reads nothing")
)]
pub(crate) enum Settings {
    /// There are no other hubs.
    Alone,
    Nats {
        /// With commas between them.
        servers: String,
        /// How many of these keep each event.
        replicas: usize,
    },
    Redis {
        url: String,
    },
}

/// The engine that broadcasters share their events over.
pub(crate) enum Others {
    None,
    /// One connection for all broadcasters.
    #[cfg(feature = "nats")]
    Nats {
        connection: tidings_nats::Connection,
        replicas: usize,
    },
    /// Each broadcaster has two connections of its own.
    #[cfg(feature = "redis")]
    Redis {
        url: String,
    },
}

impl Others {
    pub(crate) async fn connect(settings: Settings) -> io::Result<Self> {
        match settings {
            Settings::Alone => Ok(Self::None),
            #[cfg(feature = "nats")]
            Settings::Nats { servers, replicas } => {
                let options = tidings_nats::async_nats::ConnectOptions::new().name("agent_hub");
                let connection = tidings_nats::Connection::open(&servers, options).await;
                Ok(Self::Nats {
                    connection: connection.map_err(|error| failed("NATS", &error))?,
                    replicas,
                })
            }
            #[cfg(feature = "redis")]
            Settings::Redis { url } => Ok(Self::Redis { url }),
            #[cfg(not(feature = "nats"))]
            Settings::Nats { .. } => Err(lacks("nats")),
            #[cfg(not(feature = "redis"))]
            Settings::Redis { .. } => Err(lacks("redis")),
        }
    }

    pub(crate) fn is_none(&self) -> bool {
        matches!(self, Self::None)
    }

    /// Lets a broadcaster share its events. The engine keeps so many of them for each channel, so that a client that comes back
    /// continues on any hub.
    pub(crate) async fn join<E>(
        &self,
        builder: Builder<E>,
        name: &str,
        kept: u32,
    ) -> io::Result<Builder<E>> {
        match self {
            Self::None => {
                tracing::debug!(name, kept, "events are not shared");
                Ok(builder)
            }
            #[cfg(feature = "nats")]
            Self::Nats {
                connection,
                replicas,
            } => {
                use tidings_nats::{Log, Nats, Settings};

                let log = Log::new(format!("agent_hub_{name}")).replicas(*replicas);
                let log = log.max_per_user(kept);
                let nats = Nats::over(
                    connection,
                    Settings::new(format!("agent_hub.{name}")).replayable(log),
                )
                .await;
                Ok(builder.backplane(nats.map_err(|error| failed("NATS", &error))?))
            }
            #[cfg(feature = "redis")]
            Self::Redis { url } => {
                use tidings_redis::{Log, Redis, Settings};

                let log = Log::new().max_per_user(kept);
                let settings = Settings::new(format!("agent_hub.{name}")).replayable(log);
                let redis = Redis::connect(url.as_str(), settings).await;
                Ok(builder.backplane(redis.map_err(|error| failed("Redis", &error))?))
            }
        }
    }
}

/// Says nothing of the URL, which may contain a password.
#[cfg(any(feature = "nats", feature = "redis"))]
fn failed(engine: &str, error: &dyn std::error::Error) -> io::Error {
    let why = error
        .source()
        .map_or(String::new(), |why| format!(": {why}"));
    io::Error::other(format!("{engine}: {error}{why}"))
}

#[cfg(not(all(feature = "nats", feature = "redis")))]
fn lacks(feature: &str) -> io::Error {
    io::Error::other(format!(
        "--{feature} needs the feature {feature}: cargo run -p agent_hub --features {feature} ..."
    ))
}
