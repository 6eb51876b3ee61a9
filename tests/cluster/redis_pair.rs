//! A Redis primary and its replica, three nodes that are processes of their own, and readers that go from node to node, under faults
//! of each of them: nothing is lost in silence, nothing comes twice, and with a log everybody sees its order. The replica is promoted by
//! hand or by a Sentinel, and the way of each node leads to it then, as that of a proxy does.
//!
//! One short run for each level, and one for a log that states that it loses nothing.
//! `TIDINGS_SEEDS=0..200 cargo test --all-features --test cluster redis_pair -- --nocapture` runs random faults, and
//! `REDIS_SERVER=/path/to/redis-server` names another server than Debian's.

use std::collections::HashSet;
use std::fs;
use std::mem;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::support::processes::{Engine, NODES, Run, USERS, run_all};
use crate::support::received::{Got, Logs, Standard, name_in};
use crate::support::redis::{ALWAYS, Sentinel, Server, url};
use crate::support::three::signal;

/// What the nodes' channels and keys begin with.
const SCOPE: &str = "{cluster}:";

struct Pair {
    primary: Server,
    replica: Server,
    /// Nothing is ever lost, and no replica is promoted.
    is_durable: bool,
    folder: PathBuf,
}

impl Pair {
    /// The replica leads as far as it has come.
    async fn promote(run: &mut Run<Self>) {
        let replica = &run.engine.replica;
        replica.command(&["REPLICAOF", "NO", "ONE"]).await;
        Self::promoted(run).await;
    }

    /// The primary, which is dead, follows the replica when it is back.
    async fn promoted(run: &mut Run<Self>) {
        Self::swap(run);
        run.pause(1_000).await;
        let Self {
            primary, replica, ..
        } = &mut run.engine;
        replica.restart();
        replica.follow(primary).await;
    }

    /// From now on nodes are led to the other one.
    fn swap(run: &mut Run<Self>) {
        let Self {
            primary, replica, ..
        } = &mut run.engine;
        mem::swap(primary, replica);
        for node in run.nodes.iter().flatten() {
            node.networks[0].lead_to(primary.address());
        }
    }

    /// What the server has of each user: the epoch, and offsets with names.
    async fn logs(&self) -> Vec<(String, Vec<(u64, String)>)> {
        let mut connection = self.primary.connection().await;
        let mut epoch = redis::cmd("HGET");
        epoch.arg(format!("{SCOPE}log")).arg("epoch");
        let epoch: Option<String> = epoch.query_async(&mut connection).await.expect("an answer");
        let epoch = epoch.expect("there is a log");
        let mut logs = Vec::new();
        for user in 0..USERS {
            let mut range = redis::cmd("XRANGE");
            let key = format!("{SCOPE}{epoch}:l:user{user}");
            range.arg(key).arg("-").arg("+");
            let found: Vec<(String, Vec<Vec<u8>>)> =
                range.query_async(&mut connection).await.expect("an answer");
            let entry = |(id, fields): &(String, Vec<Vec<u8>>)| {
                let (offset, _) = id.split_once('-')?;
                Some((offset.parse().ok()?, name_in(&fields[3])?))
            };
            logs.push((epoch.clone(), found.iter().filter_map(entry).collect()));
        }
        logs
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            let _ = fs::remove_dir_all(&self.folder);
        }
    }
}

impl Engine for Pair {
    const FAULTS: u32 = 14;
    /// A replica is promoted that is behind, or where none may be, the server is restarted; a node dies, and a node loses its
    /// connection.
    const SHORT: &'static [u32] = &[8, 2, 5];

    fn turn() -> &'static Mutex<()> {
        static TURN: Mutex<()> = Mutex::new(());
        &TURN
    }

    async fn start(args: &[&str]) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("tidings-pair-{}-{number}", std::process::id());
        let folder = std::env::temp_dir().join(name);
        fs::create_dir_all(&folder).expect("a folder for temporary files can be written to");
        let is_durable = args.contains(&"--durable");
        let primary = Server::start(match is_durable {
            true => ALWAYS,
            false => &["--appendonly", "yes"],
        });
        Self {
            replica: primary.replica().await,
            primary,
            is_durable,
            folder,
        }
    }

    fn folder(&self) -> &Path {
        &self.folder
    }

    fn addresses(&self) -> Vec<SocketAddr> {
        vec![self.primary.address()]
    }

    fn url(addresses: &[SocketAddr]) -> String {
        url(addresses[0])
    }

    async fn fault(run: &mut Run<Self>, kind: u32) {
        let node = run.rng.usize(..NODES);
        println!("  fault {kind}, node {node}");
        match kind {
            2 => run.replace_node(node).await,
            3 => {
                let primary = run.engine.primary.pid();
                signal(primary, "STOP");
                run.pause(8_000).await;
                signal(primary, "CONT");
            }
            4 => run.stop_node(node).await,
            5 => run.cut_node(node).await,
            6 if !run.engine.is_durable => {
                // Nothing is lost. The old primary follows, and nodes are still connected to it.
                run.engine.primary.hand_over(&run.engine.replica).await;
                Self::swap(run);
            }
            7 if !run.engine.is_durable => {
                // What the replica does not have yet is lost.
                run.engine.primary.kill();
                Self::promote(run).await;
            }
            8 if !run.engine.is_durable => {
                // The replica has lost its primary, and a node that knows more than it comes back when it has grown.
                run.engine
                    .replica
                    .command(&["REPLICAOF", "NO", "ONE"])
                    .await;
                run.pause(1_500).await;
                run.node(node).cut();
                run.engine.primary.kill();
                Self::promote(run).await;
                run.pause(1_500).await;
                run.node(node).mend();
            }
            9 if !run.engine.is_durable => {
                run.engine.primary.kill();
                run.engine.primary.lose_disk();
                run.pause(1_000).await;
                run.engine.primary.restart();
            }
            10 => {
                run.may_lack = true;
                let primary = &run.engine.primary;
                let own = format!("&{SCOPE}n:*");
                let rules = ["ACL", "SETUSER", "default", "resetchannels", &own];
                primary.command(&rules).await;
                run.pause(3_000).await;
                let rules = ["ACL", "SETUSER", "default", "allchannels"];
                run.engine.primary.command(&rules).await;
            }
            11 => {
                for node in 0..NODES {
                    run.replace_node(node).await;
                }
                run.engine.replica.restart();
                run.engine.replica.follow(&run.engine.primary).await;
                if !run.engine.is_durable {
                    run.engine.primary.hand_over(&run.engine.replica).await;
                    Self::swap(run);
                    run.engine.replica.restart();
                    run.engine.replica.follow(&run.engine.primary).await;
                }
            }
            12 => {
                let time = run.rng.u64(100..8_000).to_string();
                let pause = ["CLIENT", "PAUSE", &time, "ALL"];
                run.engine.primary.command(&pause).await;
            }
            13 if !run.engine.is_durable => {
                let Self {
                    primary, replica, ..
                } = &mut run.engine;
                let sentinel = Sentinel::of(primary).await;
                primary.kill();
                sentinel.until_leads(replica).await;
                drop(sentinel);
                Self::promoted(run).await;
            }
            _ => {
                run.engine.primary.kill();
                run.pause(2_000).await;
                run.engine.primary.restart();
            }
        }
    }

    async fn whole(run: &Run<Self>) {
        run.engine.primary.until("role:master").await;
        run.engine.replica.until("master_link_status:up").await;
    }

    async fn standard(
        run: &Run<Self>,
        got: &[Vec<Got>],
        _confirmed: &[HashSet<String>],
    ) -> Standard {
        if !run.is_replayable() {
            return Standard::Publishers;
        }
        let found = run.engine.logs().await;
        if run.engine.is_durable {
            let names = |(_, log): (_, Vec<(u64, String)>)| log.into_iter().map(|(_, name)| name);
            let logs = found.into_iter().map(|found| names(found).collect());
            return Standard::Log(logs.collect());
        }
        let mut logs: Vec<Logs> = Vec::new();
        for (user, (epoch, log)) in found.iter().enumerate() {
            let mut of_user = Logs::default();
            for (offset, name) in log {
                of_user.add(epoch, *offset, name);
            }
            for got in got.iter().skip(user).step_by(USERS) {
                of_user.add_all(got);
            }
            logs.push(of_user);
        }
        Standard::Logs(logs)
    }
}

#[test]
fn a_promotion_loses_nothing_in_silence() {
    run_all::<Pair>(&["--per-user", "1000000"]);
}

#[test]
fn a_durable_log_delivers_everything_once_and_in_one_order() {
    run_all::<Pair>(&["--per-user", "1000000", "--durable"]);
}

#[test]
fn at_most_once_a_promotion_reports_missing_events() {
    run_all::<Pair>(&["--at-most-once"]);
}
