//! The stream of one run.

use std::ops::ControlFlow;
use std::time::Duration;

use tidings_agui::{Event, RunError};

use super::order::{Order, Verdict};
use super::run::{RunRef, RunStep};
use crate::frame::Frame;
use crate::gap::Gap;
use crate::sse::{AGENT_HEARTBEAT_INTERVAL, Chunks, View};

/// Shows one run to an AG-UI client: the answer to the POST of a `RunAgentInput`, which the official clients read to the
/// end of that run.
///
/// Of all events of the user it shows those of this run ([`RunRef::event`]), from `RUN_STARTED` to `RUN_FINISHED`
/// or `RUN_ERROR`, and then ends the response. It leaves out an event that is out of place, at which the client would end
/// the run with an error, and ends every open part and subagent before the run finishes. If events are
/// lost, or the stream is ended from outside, the client gets a `RUN_ERROR` that says so, with the code
/// [`CUT_OFF`](Self::CUT_OFF). So it does if open parts and subagents are more than 4,096, or their ids more than 256 KiB.
///
/// Register before the agent starts, so that the run does not begin without its reader. A reader that comes too late sees
/// only a `RUN_ERROR` in place of the run's end.
///
/// ```
/// use axum::Json;
/// use axum::extract::{Path, State};
/// use tidings::protocol::agui::{RunAgentInput, RunRef, RunView};
/// use tidings::sse::SseResponse;
/// use tidings::{AgUiBroadcaster, RegisterError};
///
/// async fn run(
///     State(agui): State<AgUiBroadcaster>,
///     Path(user): Path<String>,
///     Json(input): Json<RunAgentInput>,
/// ) -> Result<SseResponse, RegisterError> {
///     let stream = agui.register(user)?;
///     let run = RunRef::new(input.thread_id, input.run_id);
///     // Start the agent here. It sends with `agui.broadcast(&user, &run.event(event))`.
///     Ok(SseResponse::new(stream).view(RunView::new(run)))
/// }
/// ```
#[derive(Debug)]
pub struct RunView {
    run: RunRef,
    order: Order,
}

impl RunView {
    /// The code of the `RUN_ERROR` that tells the client that it does not get the rest of the run.
    pub const CUT_OFF: &str = "STREAM_CUT_OFF";

    /// Shows this run.
    #[must_use]
    pub fn new(run: RunRef) -> Self {
        Self {
            run,
            order: Order::default(),
        }
    }

    fn cut_off(chunks: &mut Chunks, why: &str) {
        let error = RunError::new(why).code(Self::CUT_OFF);
        push(chunks, &Event::new(error));
    }
}

fn push(chunks: &mut Chunks, event: &Event) {
    let frame = Frame::encode(event).expect("an event of strings can be encoded");
    chunks.push(frame.to_bytes());
}

impl View for RunView {
    fn show(&mut self, frame: &Frame, chunks: &mut Chunks) -> ControlFlow<()> {
        let Some(step) = frame.attachment::<RunStep>() else {
            return ControlFlow::Continue(());
        };
        if step.run.as_ref() != Some(&self.run) {
            return ControlFlow::Continue(());
        }
        match self.order.judge(&step.transition) {
            Verdict::Show => chunks.push(frame.to_bytes()),
            Verdict::Hide => tracing::debug!(run = self.run.run(), "an event is out of place"),
            Verdict::ShowLast(ends) => {
                ends.iter().for_each(|end| push(chunks, end));
                chunks.push(frame.to_bytes());
                return ControlFlow::Break(());
            }
            Verdict::TooLate => {
                Self::cut_off(chunks, "the run had begun before the stream");
                return ControlFlow::Break(());
            }
            Verdict::TooMuch => {
                Self::cut_off(chunks, "the run has too many open parts or subagents");
                return ControlFlow::Break(());
            }
        }
        ControlFlow::Continue(())
    }

    fn gap(&mut self, _: &Gap, chunks: &mut Chunks) -> ControlFlow<()> {
        Self::cut_off(chunks, "events were lost");
        ControlFlow::Break(())
    }

    fn end(&mut self, chunks: &mut Chunks) {
        let why = if self.order.has_started() {
            "the stream was ended before the run"
        } else {
            "the stream was ended before the run began"
        };
        Self::cut_off(chunks, why);
    }

    fn keep_alive_interval(&self) -> Duration {
        AGENT_HEARTBEAT_INTERVAL
    }
}
