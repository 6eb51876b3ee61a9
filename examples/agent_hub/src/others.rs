//! The other hubs that share these events.

use std::io;

use tidings::Builder;

/// How to reach them.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    /// NATS servers, with commas between them.
    pub(crate) servers: String,
    /// How many of these keep each event.
    pub(crate) replicas: usize,
}

/// One connection, over which all broadcasters share their events.
#[cfg(feature = "nats")]
pub(crate) struct Others {
    connection: tidings_nats::Connection,
    settings: Settings,
}

#[cfg(feature = "nats")]
impl Others {
    pub(crate) async fn connect(settings: Settings) -> io::Result<Self> {
        use tidings_nats::Connection;
        use tidings_nats::async_nats::ConnectOptions;

        let options = ConnectOptions::new().name("agent_hub");
        let connection = Connection::open(&settings.servers, options).await;
        Ok(Self {
            connection: connection.map_err(|error| failed(&settings, &error))?,
            settings,
        })
    }

    /// Lets a broadcaster share its events. The servers keep them, so that a client that comes back continues on any hub.
    pub(crate) async fn join<E>(&self, builder: Builder<E>, name: &str) -> io::Result<Builder<E>> {
        use tidings_nats::{Log, Nats, Settings};

        let log = Log::new(format!("agent_hub_{name}")).replicas(self.settings.replicas);
        let settings = Settings::new(format!("agent_hub.{name}")).replayable(log);
        let nats = Nats::over(&self.connection, settings).await;
        let nats = nats.map_err(|error| failed(&self.settings, &error))?;
        Ok(builder.backplane(nats))
    }
}

#[cfg(feature = "nats")]
fn failed(settings: &Settings, error: &tidings_nats::ConnectError) -> io::Error {
    let why = std::error::Error::source(error).map_or(String::new(), |why| format!(": {why}"));
    io::Error::other(format!("NATS at {}: {error}{why}", settings.servers))
}

/// The arguments do not let it come to this.
#[cfg(not(feature = "nats"))]
pub(crate) enum Others {}

#[cfg(not(feature = "nats"))]
impl Others {
    pub(crate) async fn connect(settings: Settings) -> io::Result<Self> {
        let Settings { servers, replicas } = settings;
        let wanted = format!("{replicas} of the NATS servers at {servers}");
        Err(io::Error::other(format!("{wanted} need the feature nats")))
    }

    pub(crate) async fn join<E>(&self, _: Builder<E>, _: &str) -> io::Result<Builder<E>> {
        match *self {}
    }
}
