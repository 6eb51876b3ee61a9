//! The command line.

use std::time::Duration;

use axum::http::uri::Authority;
use lexopt::prelude::*;

use crate::app::site::Site;
use crate::others;

pub(crate) const HELP: &str = "\
Sends events to users over server-sent events.

Usage: agent_hub [OPTIONS]

  --addr HOST:PORT    where to listen; port 0 takes a free one [127.0.0.1:3000]
  --host NAME         another host name or address to answer to, beside that of
                      --addr and those of loopback; may be repeated
  --public-url URL    the hub's URL in the agent's card, if requests do not
                      show it: behind TLS or a proxy with a path
  --forwarded         trusts X-Forwarded-Host and X-Forwarded-Proto: only
                      behind a proxy that sets both
  --heartbeat-ms N    how long a stream may be silent before a keep-alive
                      [15000; of AG-UI and A2A: 4000]
  --stall-ms N        cuts a client that takes no bytes for this long [30000]
  --drain-ms N        over how long streams are ended at a shutdown [2000]
  --history N         how many events of each user and kind are kept for
                      clients that reconnect, in at most 1 MiB; 0 keeps none
                      [2000]. Runs of the agent are always kept until 30
                      seconds after their end: up to 8 MiB each, and 256 MiB
                      for all those without a stream
  --linger-ms N       how long a user's events are kept after the last stream
                      [60000]
  --nats URL[,URL]    share events and runs with other hubs over one of these
                      NATS servers, which need JetStream; needs the feature
                      nats. Tasks and messages of a thread are not shared
  --nats-replicas N   how many NATS servers keep each event [1]
  --redis URL         the same over this Redis or Valkey server, which keeps 256
                      events of each user, and 20,000 of each run, for an
                      hour; needs the feature redis
  --console           serves a page for operators at /console, without a login:
                      for trying it out, not for the open internet
  --read-only         with --console: operators cannot send or disconnect there
  --help              shows this text

RUST_LOG chooses what is logged, for example RUST_LOG=tidings=debug.
";

pub(crate) enum Command {
    Serve(Settings),
    Help,
}

pub(crate) struct Settings {
    pub(crate) addr: String,
    pub(crate) heartbeat: Option<Duration>,
    pub(crate) stall: Duration,
    pub(crate) drain: Duration,
    /// Events of each user.
    pub(crate) history: usize,
    pub(crate) linger: Duration,
    /// The hubs that share its events.
    pub(crate) others: others::Settings,
    pub(crate) console: bool,
    /// Whether the console only shows.
    pub(crate) read_only: bool,
    /// How clients reach it.
    pub(crate) site: Site,
}

/// Reads the arguments of this process.
pub(crate) fn parse() -> Result<Command, lexopt::Error> {
    let mut settings = Settings {
        addr: "127.0.0.1:3000".into(),
        heartbeat: None,
        stall: Duration::from_secs(30),
        drain: Duration::from_secs(2),
        history: 2000,
        linger: Duration::from_secs(60),
        others: others::Settings::Alone,
        console: false,
        read_only: false,
        site: Site::default(),
    };
    let (mut nats, mut replicas, mut redis) = (None, 1, None);
    let mut args = lexopt::Parser::from_env();
    while let Some(arg) = args.next()? {
        match arg {
            Long("addr") => settings.addr = args.value()?.parse_with(address)?,
            Long("heartbeat-ms") => {
                settings.heartbeat = Some(args.value()?.parse_with(milliseconds)?);
            }
            Long("stall-ms") => settings.stall = args.value()?.parse_with(milliseconds)?,
            Long("drain-ms") => settings.drain = args.value()?.parse_with(milliseconds)?,
            Long("history") => settings.history = args.value()?.parse_with(count)?,
            Long("linger-ms") => settings.linger = args.value()?.parse_with(milliseconds)?,
            Long("nats") => nats = Some(args.value()?.parse()?),
            Long("nats-replicas") => replicas = args.value()?.parse_with(count)?,
            Long("redis") => redis = Some(args.value()?.parse()?),
            Long("console") => settings.console = true,
            Long("read-only") => settings.read_only = true,
            Long("host") => {
                let host = args.value()?.parse_with(host)?;
                settings.site = settings.site.host(&host);
            }
            Long("public-url") => {
                let site = |url: &str| settings.site.clone().public_url(url);
                settings.site = args.value()?.parse_with(site)?;
            }
            Long("forwarded") => settings.site = settings.site.believes_proxy(true),
            Long("help") | Short('h') => return Ok(Command::Help),
            other => return Err(other.unexpected()),
        }
    }
    settings.others = match (nats, redis) {
        (None, None) => others::Settings::Alone,
        (Some(servers), None) => others::Settings::Nats { servers, replicas },
        (None, Some(url)) => others::Settings::Redis { url },
        (Some(_), Some(_)) => return Err("--nats and --redis exclude each other".into()),
    };
    // Whoever listens there is reached there. All addresses (0.0.0.0) are no name that a client uses.
    let listens = settings.addr.rsplit_once(':').map_or("", |(host, _)| host);
    settings.site = settings.site.host(listens);
    Ok(Command::Serve(settings))
}

/// Checks the form only: whether the host exists is seen when it is listened on.
fn address(text: &str) -> Result<String, &'static str> {
    let wrong = "it has to be HOST:PORT, such as 127.0.0.1:3000 or [::1]:3000";
    let (host, port) = text.rsplit_once(':').ok_or(wrong)?;
    let bare_ipv6 = host.contains(':') && !host.starts_with('[');
    if host.is_empty() || bare_ipv6 || port.parse::<u16>().is_err() {
        return Err(wrong);
    }
    Ok(text.into())
}

/// As a request names it, without a port.
fn host(text: &str) -> Result<String, &'static str> {
    match text.parse::<Authority>() {
        Ok(authority) if authority.host() == text => Ok(text.into()),
        _ => Err("it has to be a host name or an address, such as hub.example or [fd00::1]"),
    }
}

fn count(text: &str) -> Result<usize, &'static str> {
    text.parse()
        .map_err(|_| "it has to be a whole number, 0 or more")
}

fn milliseconds(text: &str) -> Result<Duration, &'static str> {
    match text.parse() {
        Ok(0) | Err(_) => Err("it has to be a whole number of milliseconds, 1 or more"),
        Ok(milliseconds) => Ok(Duration::from_millis(milliseconds)),
    }
}
