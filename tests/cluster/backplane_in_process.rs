//! The engine in memory does what every backplane must.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use tidings::backplane::{Backplane, Level};
use tidings_testkit::backplane::{self, Cluster, Faults};
use tidings_testkit::backplane::{InProcess, InProcessNode};

const KEPT: usize = 40;

struct Nodes {
    engine: InProcess,
    nodes: Mutex<HashMap<usize, InProcessNode>>,
}

impl Nodes {
    fn new(level: Level) -> Self {
        Self {
            engine: InProcess::keeping(level, KEPT),
            nodes: Mutex::default(),
        }
    }

    fn get(&self, node: &Arc<dyn Backplane>) -> InProcessNode {
        self.nodes.lock().unwrap()[&id(node)].clone()
    }
}

fn id(node: &Arc<dyn Backplane>) -> usize {
    Arc::as_ptr(node).cast::<()>() as usize
}

#[async_trait]
impl Cluster for Nodes {
    async fn node(&self) -> Arc<dyn Backplane> {
        let node = self.engine.node();
        let shared: Arc<dyn Backplane> = Arc::new(node.clone());
        self.nodes.lock().unwrap().insert(id(&shared), node);
        shared
    }

    fn max_per_user(&self) -> Option<usize> {
        Some(KEPT)
    }
}

#[async_trait]
impl Faults for Nodes {
    async fn stop(&self) {
        self.engine.stop();
    }

    async fn start(&self) {
        self.engine.start();
    }

    async fn cut(&self, node: &Arc<dyn Backplane>) {
        self.engine.cut(&self.get(node));
    }

    async fn mend(&self, node: &Arc<dyn Backplane>) {
        self.engine.mend(&self.get(node));
    }
}

#[tokio::test]
async fn it_passes_the_suite_of_backplanes() {
    for level in [Level::AtMostOnce, Level::Replayable] {
        backplane::every_level(&Nodes::new(level)).await;
    }
}

#[tokio::test]
async fn its_log_is_a_log() {
    backplane::replayable(&Nodes::new(Level::Replayable)).await;
}

#[tokio::test]
async fn it_reports_failures() {
    for level in [Level::AtMostOnce, Level::Replayable] {
        backplane::failures(&Nodes::new(level)).await;
    }
}
