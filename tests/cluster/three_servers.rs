//! Three NATS servers that keep three copies of the log, three nodes that are processes of their own, and readers that go
//! from node to node, under faults of each of them: nothing is lost silently, nothing comes twice, and at `Replayable` every
//! reader sees the log's order. If the servers themselves lose confirmed messages, which NATS 2.9 does after some of these
//! faults, the loss is reported.
//!
//! One short run for each level. `TIDINGS_SEEDS=0..200 cargo test --all-features --test cluster three_servers -- --nocapture` runs
//! random faults, and `NATS_SERVER=/path/to/nats-server` names another server than Debian's.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Mutex;
use std::time::Duration;

use crate::support::processes::{Engine, NODES, Run, USERS, run_all};
use crate::support::received::{Got, Standard, name_in};
use crate::support::three::{Denied, Servers};

impl Engine for Servers {
    const FAULTS: u32 = 11;
    /// The leader is killed, a node, and a node loses its connection.
    const SHORT: &'static [u32] = &[0, 2, 5];

    fn turn() -> &'static Mutex<()> {
        static TURN: Mutex<()> = Mutex::new(());
        &TURN
    }

    async fn start(_: &[&str]) -> Self {
        Self::start().await
    }

    fn folder(&self) -> &Path {
        self.folder()
    }

    fn addresses(&self) -> Vec<SocketAddr> {
        (0..3).map(|server| self.address(server)).collect()
    }

    fn url(addresses: &[SocketAddr]) -> String {
        let url = |address: &SocketAddr| format!("nats://node:n@{address}");
        addresses.iter().map(url).collect::<Vec<_>>().join(",")
    }

    async fn fault(run: &mut Run<Self>, kind: u32) {
        let node = run.rng.usize(..NODES);
        let server = match run.is_replayable() && run.rng.bool() {
            true => run.engine.leading().await,
            false => run.rng.usize(..3),
        };
        println!("  fault {kind}, server {server}, node {node}");
        match kind {
            0 | 1 => {
                run.engine.kill(server);
                run.pause(3_000).await;
                run.engine.run(server);
            }
            2 => run.replace_node(node).await,
            3 => {
                run.engine.signal(server, "STOP");
                run.pause(15_000).await;
                run.engine.signal(server, "CONT");
            }
            4 => run.stop_node(node).await,
            5 => run.cut_node(node).await,
            6 => {
                run.node(node).networks[server].cut();
                run.pause(1_000).await;
                run.node(node).networks[server].mend();
            }
            7 if run.is_replayable() => {
                Self::whole(run).await;
                let longer = Duration::from_secs(run.rng.u64(3_600..7_200));
                run.engine
                    .edit(|config| {
                        config.max_age = longer;
                        config.duplicate_window = Duration::from_secs(100);
                        config.max_messages_per_subject = 900_000;
                    })
                    .await;
                run.engine.edit(|config| config.num_replicas = 1).await;
                run.pause(1_000).await;
                run.engine.edit(|config| config.num_replicas = 3).await;
            }
            8 => {
                run.may_lack = true;
                let denied = match run.rng.bool() {
                    true => Denied::Publish,
                    false => Denied::Subscribe,
                };
                run.engine.deny(denied);
                run.pause(3_000).await;
                run.engine.deny(Denied::Nothing);
                if run.is_replayable() {
                    // With NATS 2.9, streams receive nothing until they have another leader.
                    Self::whole(run).await;
                    run.engine.step_down().await;
                }
            }
            9 => {
                Self::whole(run).await;
                run.engine.kill(server);
                run.engine.lose_disk(server);
                run.pause(1_000).await;
                run.engine.run(server);
                Self::whole(run).await;
            }
            _ => {
                for one in 0..3 {
                    run.engine.terminate(one);
                    run.pause(500).await;
                    run.engine.run(one);
                    Self::whole(run).await;
                    run.kill_node(one).await;
                    run.start_node(one).await;
                }
            }
        }
    }

    async fn whole(run: &Run<Self>) {
        if run.is_replayable() {
            run.engine.caught_up().await;
        }
    }

    async fn standard(
        run: &Run<Self>,
        got: &[Vec<Got>],
        confirmed: &[HashSet<String>],
    ) -> Standard {
        if !run.is_replayable() {
            return Standard::Publishers;
        }
        let log = run.engine.log().await;
        let mut logs: [Vec<String>; USERS] = Default::default();
        for name in log.iter().filter_map(|message| name_in(message)) {
            let user = confirmed.iter().position(|names| names.contains(&name));
            // One that was not confirmed is known by those of its user who got it.
            let user = user.or_else(|| {
                let has_it = |got: &Vec<Got>| got.iter().any(|got| got.name() == Some(&name));
                got.iter().position(has_it).map(|reader| reader % USERS)
            });
            if let Some(user) = user {
                logs[user].push(name);
            }
        }
        let in_log: HashSet<&String> = logs.iter().flatten().collect();
        let all_confirmed = confirmed.iter().flatten();
        let lost = all_confirmed.filter(|name| !in_log.contains(name)).count();
        // The nodes must have noticed, and say so in the stream.
        let is_noticed = lost > 0 && {
            let description = run.engine.info().await.config.description;
            description.is_some_and(|text| text.contains("tidings-epoch="))
        };
        if is_noticed {
            println!("  the servers lost {lost} events, which the nodes noticed");
            return Standard::Told;
        }
        Standard::Log(logs.into())
    }
}

#[test]
fn replayable_over_three_servers_delivers_everything_once_and_in_one_order() {
    run_all::<Servers>(&["--replicas", "3", "--per-user", "1000000"]);
}

#[test]
fn at_most_once_over_three_servers_reports_missing_events() {
    run_all::<Servers>(&["--at-most-once"]);
}
