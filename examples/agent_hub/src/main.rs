//! A server that passes events on to its users, to start from.
//!
//!     cargo run --release -p agent_hub
//!
//! `app` has the routes and the page that it serves; `app/cut.rs` breaks connections on purpose; `scrape` is the page for Prometheus,
//! `others` shares events with other hubs.

use std::io::{self, IsTerminal};
use std::process::ExitCode;
use std::time::Duration;

use axum::middleware::from_fn_with_state;
use tidings::protocol::a2a::A2aEvent;
use tidings::protocol::agui::AgUiEvent;
use tidings::serve::{bind, serve};
use tidings::{Builder, EventRouter, GenericBroadcaster, History, LagPolicy, Text};
use tidings_aisdk::Chunk;
use tidings_console::Console;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

use app::{Hub, runs, site};
use args::{Command, Settings};
use others::Others;

mod app;
mod args;
mod others;
mod scrape;

/// How long, after all streams were ended, connections may still hold up the end: those of clients that do not read.
const STOP_LIMIT: Duration = Duration::from_millis(500);

#[tokio::main]
async fn main() -> ExitCode {
    let settings = match args::parse() {
        Ok(Command::Serve(settings)) => settings,
        Ok(Command::Help) => {
            print!("{}", args::HELP);
            return ExitCode::SUCCESS;
        }
        Err(error) => {
            eprintln!("agent_hub: {error}. Try --help.");
            return ExitCode::from(2);
        }
    };
    tracing_subscriber::fmt()
        .with_env_filter(
            EnvFilter::builder()
                .with_default_directive(LevelFilter::INFO.into())
                .from_env_lossy(),
        )
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal())
        .init();
    match run(&settings).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("agent_hub: {}: {error}", settings.addr);
            ExitCode::FAILURE
        }
    }
}

async fn run(settings: &Settings) -> io::Result<()> {
    let history =
        (settings.history > 0).then(|| History::new(settings.history).linger(settings.linger));
    // A client that can still read all of it is not one to give up on.
    let behind = settings.history.max(64) as u64;
    let patience = (behind, settings.stall);
    let others = Others::connect(settings.others.clone()).await?;
    let opening = Opening { patience, others };
    let (plain, strict) = (LagPolicy::default(), LagPolicy::End);
    let text: GenericBroadcaster<Text> = opening.open("text", history, plain, |hub| hub).await?;
    let agui = opening.open("agui", history, strict, |hub| {
        hub.attachments(AgUiEvent::attachment_of)
    });
    let a2a = opening.open("a2a", history, strict, |hub| {
        hub.attachments(A2aEvent::attachment_of)
    });
    let context = opening.open("context", history, plain, |hub| hub);
    let analytics = opening.open("analytics", history, plain, |hub| hub);
    let events = EventRouter::builder()
        .agui(agui.await?)
        .a2a(a2a.await?)
        .context(context.await?)
        .analytics(analytics.await?)
        .build();
    // Where nothing is lost by it, clients may come back soon.
    let retry = history.map(|_| Duration::from_secs(1));
    let hub = Hub::new(text.clone(), events.clone(), settings.heartbeat, retry)
        .site(settings.site.clone());
    let others = &opening.others;
    let (hub, notices) = match others.is_none() {
        true => (hub, None),
        false => {
            let runs = others
                .join(runs::of_agent(), "runs", runs::MOST_EVENTS)
                .await?;
            let chats = others
                .join(runs::of_chats(), "aisdk", runs::MOST_EVENTS)
                .await?;
            // Each notice takes the place of the one before.
            let notices = GenericBroadcaster::builder().name("notices");
            let notices = others.join(notices, "notices", 1).await?.build();
            let (runs, chats) = (runs.build(), chats.build());
            let valid = "the settings are valid";
            let notices = notices.expect(valid);
            let hub = hub.sharing(runs.expect(valid), chats.expect(valid), &notices);
            (hub.expect("nothing is full yet"), Some(notices))
        }
    };
    let (runs, chats) = (hub.runs().clone(), hub.chats().clone());

    // What scrapes is no browser, but a page could ask for the figures as well.
    let guard = from_fn_with_state(settings.site.clone(), site::guard);
    let figures = scrape::router(text.clone(), events.clone(), runs.clone(), chats.clone())?;
    let figures = figures.layer(guard);
    let routes = app::router(hub).merge(figures);

    // Before the address is printed: whoever reads it may stop us from then on.
    let stop_signal = stop_signal()?;
    let listener = bind(&settings.addr).await?.stall_limit(settings.stall);
    let base = format!("http://{}", listener.local_addr()?);
    print_what_to_try(&base);
    let mut app = routes;
    let console = console(&text, &events, &runs, &chats)
        .hosts(settings.site.hosts())
        .read_only(settings.read_only);
    if settings.console {
        println!("\nThe console is at {base}/console");
        // A service puts a layer around it that lets operators through only.
        app = app.nest("/console", console.router());
    }

    let drain = settings.drain;
    let ended = serve(listener, app)
        .with_graceful_shutdown(async move {
            stop_signal.await;
            tracing::info!("stopping");
            // The server waits for its responses, and a stream is one that does not end of its own accord.
            tokio::join!(
                console.shutdown(),
                text.shutdown(drain),
                events.agui().shutdown(drain),
                events.a2a().shutdown(drain),
                events.context().shutdown(drain),
                events.analytics().shutdown(drain),
                runs.shutdown(drain),
                chats.shutdown(drain),
                async {
                    if let Some(notices) = notices {
                        notices.shutdown(drain).await;
                    }
                },
            );
        })
        .drain(STOP_LIMIT)
        .await;
    if ended.aborted > 0 {
        tracing::warn!(connections = ended.aborted, "did not end in time");
    }
    Ok(())
}

/// Events of each user that an engine keeps, if hubs share one.
const KEPT: u32 = 256;

/// What all broadcasters are opened with.
struct Opening {
    patience: (u64, Duration),
    others: Others,
}

impl Opening {
    async fn open<E>(
        &self,
        name: &'static str,
        history: Option<History>,
        lag: LagPolicy,
        more: impl FnOnce(Builder<E>) -> Builder<E>,
    ) -> io::Result<GenericBroadcaster<E>> {
        let (behind, time) = self.patience;
        let builder: Builder<E> = GenericBroadcaster::builder();
        let builder = more(builder)
            .name(name)
            .history(history)
            .lag_policy(lag)
            .patience(behind, time)
            .sweep_every(Duration::from_secs(1));
        let builder = self.others.join(builder, name, KEPT).await?;
        Ok(builder.build().expect("the settings are valid"))
    }
}

/// A page for operators, over all broadcasters.
fn console(
    text: &GenericBroadcaster<Text>,
    events: &EventRouter,
    runs: &GenericBroadcaster<AgUiEvent>,
    chats: &GenericBroadcaster<Chunk>,
) -> Console {
    Console::new()
        .broadcaster_with("text", text, |text| Text::new(text).event("text"))
        .broadcaster("agui", events.agui())
        .broadcaster("a2a", events.a2a())
        .broadcaster("context", events.context())
        .broadcaster("analytics", events.analytics())
        .broadcaster("runs", runs)
        .broadcaster("aisdk", chats)
}

/// What Ctrl-C or SIGTERM resolves. They are caught from now on, not from when it is first polled.
#[cfg(unix)]
fn stop_signal() -> io::Result<impl Future<Output = ()>> {
    use tokio::signal::unix::{SignalKind, signal};

    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    })
}

/// What Ctrl-C resolves.
#[cfg(not(unix))]
fn stop_signal() -> io::Result<impl Future<Output = ()>> {
    Ok(async {
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending().await
        }
    })
}

fn print_what_to_try(base: &str) {
    print!(
        "\
agent_hub listens on {base}

Open it in a browser, or open a stream and send an event from another terminal:

  curl -N {base}/users/ann/streams/text
  curl --json '{{\"text\":\"hello\"}}' {base}/users/ann/events/text

A small agent, for clients of AG-UI, of A2A, of the AI SDK and of TanStack AI:

  curl -N --json '{{\"threadId\":\"t\",\"runId\":\"r\",\"messages\":[{{\"id\":\"m\",\"role\":\"user\",\"content\":\"hello\"}}]}}' \\
    '{base}/agui/ann?agent=echo'
  curl -N --json '{{\"message\":{{\"messageId\":\"m\",\"role\":\"ROLE_USER\",\"parts\":[{{\"text\":\"hello\"}}]}}}}' \\
    {base}/a2a/ann/message:stream
  curl {base}/a2a/ann/.well-known/agent-card.json
  curl -N --json '{{\"id\":\"c\",\"messages\":[{{\"role\":\"user\",\"parts\":[{{\"type\":\"text\",\"text\":\"hello\"}}]}}]}}' \\
    {base}/aisdk/ann/chat
  curl -N -i {base}/aisdk/ann/chat/c/stream
  curl -N '{base}/tanstack/ann?offset=-1&runId=r'

Then end the stream, break it as a crash would, and see what was counted:

  curl -X POST {base}/users/ann/end
  curl -X POST {base}/users/ann/drop
  curl {base}/stats
  curl {base}/metrics

Ctrl-C stops it.
"
    );
}
