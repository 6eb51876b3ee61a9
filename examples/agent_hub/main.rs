//! A server that passes events on to its users, to start from.
//!
//!     cargo run --release --example agent_hub
//!
//! `app` has the routes and the page that it serves; `app/cut.rs` breaks connections on purpose.

use std::io::{self, IsTerminal};
use std::process::ExitCode;
use std::time::Duration;

use axum::serve::Listener;
use tidings::serve::{bind, serve};
use tidings::{GenericBroadcaster, History, KeepAlive, Text};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

use args::{Command, Settings};

mod app;
mod args;

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
    let hub = GenericBroadcaster::<Text>::builder()
        .history(history)
        .patience(64, settings.stall)
        .sweep_every(Duration::from_secs(1))
        .build()
        .expect("the settings are valid");
    let keep_alive = KeepAlive::comment().interval(settings.heartbeat);
    // Where nothing is lost by it, clients may come back soon.
    let retry = history.map(|_| Duration::from_secs(1));
    let app = app::router(hub.clone(), keep_alive, retry);

    // Before the address is printed: whoever reads it may stop us from then on.
    let stop_signal = stop_signal()?;
    let listener = bind(&settings.addr).await?.stall_limit(settings.stall);
    print_what_to_try(&format!("http://{}", listener.local_addr()?));

    let drain = settings.drain;
    let ended = serve(listener, app)
        .with_graceful_shutdown(async move {
            stop_signal.await;
            tracing::info!(connections = hub.total_connections(), "stopping");
            // The server waits for its responses, and a stream is one that does not end of its own accord.
            hub.shutdown(drain).await;
        })
        .drain(STOP_LIMIT)
        .await;
    if ended.aborted > 0 {
        tracing::warn!(connections = ended.aborted, "did not end in time");
    }
    Ok(())
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

Then end the stream, break it as a crash would, and see what was counted:

  curl -X POST {base}/users/ann/end
  curl -X POST {base}/users/ann/drop
  curl {base}/stats

Ctrl-C stops it.
"
    );
}
