//! Which events a client that reads one run may be shown, and when.
//!
//! The official clients end a run with an error at an event that is out of place. These are their rules, as `verify.ts` and
//! `chunks/transform.ts` of `@ag-ui/client` 1.0.0 have them:
//!
//! 1. The first event is `RUN_STARTED` or `RUN_ERROR`, and a run starts once.
//! 2. Each part begins once under its id, and only a part that has begun may continue and end. A step's id is its name and
//!    the subagent that it is of.
//! 3. A subagent begins once, and after the one that it works for.
//! 4. A lane, which is a subagent or the agent itself, has at most one part that is sent in chunks. A chunk without an id
//!    continues it. Another event of the lane ends it, but for those that say nothing about messages.
//! 5. Every part and every subagent has ended before `RUN_FINISHED`. It or `RUN_ERROR` is the last event.
//!
//! Which subagent a message or a call is of is not looked at: clients remember that for the whole run.

use std::collections::HashSet;

use tidings_agui::{
    Body, Event, ReasoningEnd, ReasoningMessageEnd, StepFinished, SubagentFinished, TextMessageEnd,
    ToolCallEnd,
};

/// What is remembered of a run: parts that have not ended, and subagents. A run that needs more is cut off.
const MOST_PARTS: usize = 4_096;

/// The same in bytes of their ids.
const MOST_BYTES: usize = 256 * 1024;

/// A part of a run that begins and ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Text,
    ToolCall,
    Reasoning,
    ReasoningMessage,
    Step,
    Subagent,
}

type Id = Box<str>;

/// What an event does to the state of its run.
#[derive(Debug)]
pub(super) struct Transition {
    /// The subagent that it is of, or the agent itself.
    lane: Option<Id>,
    effect: Effect,
}

#[derive(Debug)]
enum Effect {
    RunStarted,
    RunFinished,
    RunError,
    /// A part that begins, and the subagent that a subagent works for.
    Begin(Part, Id, Option<Id>),
    GoOn(Part, Id),
    End(Part, Id),
    /// A piece that begins and ends by itself, and whether it can be the first.
    Chunk(Part, Option<Id>, bool),
    /// Needs nothing, and ends what its lane has in chunks.
    Other,
    /// The same for all lanes.
    MessagesSnapshot,
    /// The same for no lane.
    Aside,
}

impl Transition {
    pub(super) fn of(event: &Event) -> Self {
        use Part::{Reasoning, ReasoningMessage, Step, Subagent, Text, ToolCall};
        let id = |id: &String| Id::from(id.as_str());
        let begin = |part, name| Effect::Begin(part, id(name), None);
        let go_on = |part, name| Effect::GoOn(part, id(name));
        let end = |part, name| Effect::End(part, id(name));
        let chunk = |part, name: &Option<String>| {
            Effect::Chunk(part, name.as_ref().map(id), name.is_some())
        };
        let effect = match &event.body {
            Body::RunStarted(_) => Effect::RunStarted,
            Body::RunFinished(_) => Effect::RunFinished,
            Body::RunError(_) => Effect::RunError,
            Body::StepStarted(step) => begin(Step, &step.step_name),
            Body::StepFinished(step) => end(Step, &step.step_name),
            Body::TextMessageStart(text) => begin(Text, &text.message_id),
            Body::TextMessageContent(text) => go_on(Text, &text.message_id),
            Body::TextMessageEnd(text) => end(Text, &text.message_id),
            Body::TextMessageChunk(text) => chunk(Text, &text.message_id),
            Body::ToolCallStart(call) => begin(ToolCall, &call.tool_call_id),
            Body::ToolCallArgs(call) => go_on(ToolCall, &call.tool_call_id),
            Body::ToolCallEnd(call) => end(ToolCall, &call.tool_call_id),
            Body::ToolCallChunk(call) => {
                let can_be_first = call.tool_call_id.is_some() && call.tool_call_name.is_some();
                Effect::Chunk(ToolCall, call.tool_call_id.as_ref().map(id), can_be_first)
            }
            Body::ReasoningStart(body) => begin(Reasoning, &body.message_id),
            Body::ReasoningEnd(body) => end(Reasoning, &body.message_id),
            Body::ReasoningMessageStart(body) => begin(ReasoningMessage, &body.message_id),
            Body::ReasoningMessageContent(body) => go_on(ReasoningMessage, &body.message_id),
            Body::ReasoningMessageEnd(body) => end(ReasoningMessage, &body.message_id),
            Body::ReasoningMessageChunk(body) => chunk(ReasoningMessage, &body.message_id),
            Body::SubagentStarted(body) => {
                let parent = body.parent_subagent_run_id.as_ref().map(id);
                Effect::Begin(Subagent, id(&body.subagent_run_id), parent)
            }
            Body::SubagentFinished(body) => end(Subagent, &body.subagent_run_id),
            Body::SubagentError(body) => end(Subagent, &body.subagent_run_id),
            Body::MessagesSnapshot(_) => Effect::MessagesSnapshot,
            Body::Raw(_)
            | Body::ActivitySnapshot(_)
            | Body::ActivityDelta(_)
            | Body::ReasoningEncryptedValue(_)
            | Body::Unknown(_) => Effect::Aside,
            _ => Effect::Other,
        };
        let lane = event.subagent_run_id.as_ref().map(id);
        Self { lane, effect }
    }
}

/// A part that has begun and not ended.
#[derive(Debug)]
struct Open {
    part: Part,
    id: Id,
    lane: Option<Id>,
}

impl Open {
    fn bytes(&self) -> usize {
        self.id.len() + self.lane.as_ref().map_or(0, |lane| lane.len())
    }

    fn is(&self, part: Part, id: &str) -> bool {
        self.part == part && *self.id == *id
    }
}

/// Where a run is, as far as its client has seen.
#[derive(Debug, Default)]
pub(super) struct Order {
    started: bool,
    /// In the order in which they began.
    open: Vec<Open>,
    /// The parts that are sent in chunks, of each lane one at most.
    chunks: Vec<Open>,
    /// The subagents that have ended.
    ended: HashSet<Id>,
    /// Of all these ids.
    bytes: usize,
}

/// What to do with an event.
#[derive(Debug, PartialEq)]
pub(super) enum Verdict {
    Show,
    /// It would end the run with an error.
    Hide,
    /// Show these, then the event, and then nothing more.
    ShowLast(Vec<Event>),
    /// It is the end of a run of which the client did not see the beginning.
    TooLate,
    /// There is more than is remembered.
    TooMuch,
}

impl Order {
    pub(super) fn has_started(&self) -> bool {
        self.started
    }

    pub(super) fn judge(&mut self, of: &Transition) -> Verdict {
        match &of.effect {
            Effect::RunError => return Verdict::ShowLast(Vec::new()),
            Effect::RunFinished if self.started => return Verdict::ShowLast(self.ends()),
            Effect::RunFinished => return Verdict::TooLate,
            _ => {}
        }
        if !self.may_show(of) {
            return Verdict::Hide;
        }
        self.show(of);
        if self.open.len() + self.chunks.len() + self.ended.len() > MOST_PARTS
            || self.bytes > MOST_BYTES
        {
            return Verdict::TooMuch;
        }
        Verdict::Show
    }

    fn may_show(&self, of: &Transition) -> bool {
        let lane = of.lane.as_deref();
        match &of.effect {
            Effect::RunStarted => !self.started,
            _ if !self.started => false,
            Effect::Begin(part, id, parent) => {
                // What its own lane has in chunks ends before it.
                let in_chunks = |open: &Open| open.is(*part, id) && open.lane.as_deref() != lane;
                let is_known = |id: &str| {
                    self.find(Part::Subagent, id, None).is_some() || self.ended.contains(id)
                };
                self.find(*part, id, lane).is_none()
                    && !self.chunks.iter().any(in_chunks)
                    && !(*part == Part::Subagent && self.ended.contains(id))
                    && parent.as_deref().is_none_or(is_known)
            }
            Effect::GoOn(part, id) | Effect::End(part, id) => self.find(*part, id, lane).is_some(),
            Effect::Chunk(part, id, can_be_first) => {
                let Some(at) = self.lane_of(*part, id.as_deref(), lane) else {
                    return false;
                };
                let is_open = |id: &Id| self.find(*part, id, None).is_some();
                self.goes_on(*part, id.as_deref(), at)
                    || (*can_be_first && !id.as_ref().is_some_and(is_open))
            }
            _ => true,
        }
    }

    fn show(&mut self, of: &Transition) {
        let lane = of.lane.as_deref();
        match &of.effect {
            Effect::RunStarted => self.started = true,
            Effect::Begin(part, id, _) => {
                if *part != Part::Subagent {
                    self.end_chunks(|open| open.lane.as_deref() == lane);
                }
                let open = Open {
                    part: *part,
                    id: id.clone(),
                    lane: of.lane.clone(),
                };
                self.bytes += open.bytes();
                self.open.push(open);
            }
            Effect::End(part, id) => {
                let of_subagent = (*part == Part::Subagent).then_some(&**id);
                self.end_chunks(|open| open.lane.as_deref() == of_subagent.or(lane));
                if let Some(at) = self.find(*part, id, lane) {
                    self.bytes -= self.open.remove(at).bytes();
                }
                if of_subagent.is_some() && self.ended.insert(id.clone()) {
                    self.bytes += id.len();
                }
            }
            Effect::Chunk(part, id, _) => {
                let at = self.lane_of(*part, id.as_deref(), lane).flatten();
                let at = at.map(Id::from);
                if self.goes_on(*part, id.as_deref(), at.as_deref()) {
                    return;
                }
                self.end_chunks(|open| open.lane == at);
                let id = id.clone().expect("the first chunk names its part");
                let open = Open {
                    part: *part,
                    id,
                    lane: at,
                };
                self.bytes += open.bytes();
                self.chunks.push(open);
            }
            Effect::GoOn(..) | Effect::Other => {
                self.end_chunks(|open| open.lane.as_deref() == lane);
            }
            Effect::MessagesSnapshot => self.end_chunks(|_| true),
            Effect::Aside | Effect::RunFinished | Effect::RunError => {}
        }
    }

    /// A step is one of its lane, and every other part has an id of its own.
    fn find(&self, part: Part, id: &str, lane: Option<&str>) -> Option<usize> {
        let is_it =
            |open: &Open| open.is(part, id) && (part != Part::Step || open.lane.as_deref() == lane);
        self.open.iter().position(is_it)
    }

    /// The lane that a chunk is of. None if it contradicts what is open, or could be of several.
    fn lane_of<'a>(
        &'a self,
        part: Part,
        id: Option<&str>,
        tag: Option<&'a str>,
    ) -> Option<Option<&'a str>> {
        if let Some(id) = id {
            let of_id = self.chunks.iter().find(|open| open.is(part, id));
            let lane = of_id.map_or(tag, |open| open.lane.as_deref());
            return (tag.is_none() || tag == lane).then_some(lane);
        }
        let mut of_part = self.chunks.iter().filter(|open| open.part == part);
        if tag.is_some() || of_part.clone().any(|open| open.lane.is_none()) {
            return Some(tag);
        }
        let only = of_part.next().and_then(|open| open.lane.as_deref());
        of_part.next().is_none().then_some(only)
    }

    /// Whether a chunk continues what its lane has in chunks.
    fn goes_on(&self, part: Part, id: Option<&str>, lane: Option<&str>) -> bool {
        let mut chunks = self.chunks.iter();
        let of_lane = chunks.find(|open| open.lane.as_deref() == lane);
        of_lane.is_some_and(|open| open.part == part && id.is_none_or(|id| *open.id == *id))
    }

    fn end_chunks(&mut self, ends: impl Fn(&Open) -> bool) {
        let bytes = &mut self.bytes;
        self.chunks.retain(|open| {
            let ends = ends(open);
            if ends {
                *bytes -= open.bytes();
            }
            !ends
        });
    }

    /// The ends of all that is open, the last that began first. Clients end what is in chunks themselves.
    fn ends(&mut self) -> Vec<Event> {
        let end = |open: Open| {
            let end = match open.part {
                Part::Text => Event::new(TextMessageEnd::new(open.id)),
                Part::ToolCall => Event::new(ToolCallEnd::new(open.id)),
                Part::Reasoning => Event::new(ReasoningEnd::new(open.id)),
                Part::ReasoningMessage => Event::new(ReasoningMessageEnd::new(open.id)),
                Part::Step => Event::new(StepFinished::new(open.id)),
                Part::Subagent => Event::new(SubagentFinished::new(open.id)),
            };
            match open.lane {
                Some(lane) => end.subagent_run_id(lane),
                None => end,
            }
        };
        self.open.drain(..).rev().map(end).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(order: &mut Order, event: &Event) -> bool {
        order.judge(&Transition::of(event)) == Verdict::Show
    }

    #[test]
    fn events_out_of_place_are_hidden() {
        let mut order = Order::default();
        let content = Event::text_message_content("m", "x");
        assert!(!shown(&mut order, &content), "before the run");
        assert!(shown(&mut order, &Event::run_started("t", "r")));
        assert!(!shown(&mut order, &Event::run_started("t", "r")));
        assert!(!shown(&mut order, &content), "before its message");
        assert!(shown(&mut order, &Event::text_message_start("m")));
        assert!(!shown(&mut order, &Event::text_message_start("m")));
        assert!(shown(&mut order, &content));
        assert!(!shown(&mut order, &Event::text_message_end("n")));
        assert!(shown(&mut order, &Event::text_message_end("m")));
        assert!(!shown(&mut order, &content), "behind its message");
    }

    #[test]
    fn what_is_open_ends_before_the_run() {
        let mut order = Order::default();
        for event in [
            Event::run_started("t", "r"),
            Event::new(tidings_agui::StepStarted::new("s")),
            Event::text_message_start("m"),
        ] {
            assert!(shown(&mut order, &event));
        }
        let finished = Event::run_finished("t", "r");
        let Verdict::ShowLast(ends) = order.judge(&Transition::of(&finished)) else {
            panic!("it is the last");
        };
        let names: Vec<_> = ends.iter().map(Event::type_name).collect();
        assert_eq!(names, ["TEXT_MESSAGE_END", "STEP_FINISHED"]);
    }

    fn chunk(id: Option<&str>) -> Event {
        let mut chunk = tidings_agui::TextMessageChunk::new().delta("x");
        chunk.message_id = id.map(str::to_owned);
        Event::new(chunk)
    }

    #[test]
    fn a_chunk_without_an_id_goes_on_with_the_one_before_in_its_lane() {
        let mut order = Order::default();
        let mut show = |event: &Event| shown(&mut order, event);
        assert!(show(&Event::run_started("t", "r")));
        assert!(!show(&chunk(None)));
        assert!(show(&chunk(Some("m"))));
        assert!(show(&chunk(None)));
        // What is hidden, and what says nothing about messages, ends nothing.
        let named = |id: &str| tidings_agui::ToolCallChunk::new().tool_call_id(id);
        assert!(!show(&Event::new(named("c"))), "the call has no name");
        assert!(show(&Event::new(tidings_agui::Raw::new(1))));
        assert!(show(&chunk(None)));
        // Nor does another lane.
        let of_subagent = |event: Event| event.subagent_run_id("s");
        assert!(show(&of_subagent(chunk(Some("n")))));
        assert!(show(&of_subagent(Event::state_snapshot(1))));
        assert!(show(&chunk(None)));
        assert!(!show(&of_subagent(chunk(None))));
        // Another event of its own does.
        assert!(show(&Event::state_snapshot(1)));
        assert!(!show(&chunk(None)));
        // Of those that go on in several lanes none is meant.
        for lane in ["a", "b"] {
            assert!(show(&chunk(Some(lane)).subagent_run_id(lane)));
        }
        assert!(!show(&chunk(None)));
        assert!(show(&chunk(None).subagent_run_id("a")));
        assert!(!show(&chunk(Some("a")).subagent_run_id("b")));
    }

    #[test]
    fn a_part_is_sent_either_in_chunks_or_whole() {
        let mut order = Order::default();
        let mut show = |event: &Event| shown(&mut order, event);
        assert!(show(&Event::run_started("t", "r")));
        assert!(show(&Event::text_message_start("m")));
        assert!(!show(&chunk(Some("m"))), "it is open");
        assert!(show(&Event::text_message_end("m")));
        let call = |id: &str| tidings_agui::ToolCallChunk::new().tool_call_id(id);
        assert!(show(&Event::new(call("t1").tool_call_name("tool"))));
        assert!(show(&Event::new(call("t1"))));
        assert!(!show(&Event::new(call("t2"))), "it has no name");
        assert!(show(&Event::new(call("t1"))));
    }
}
