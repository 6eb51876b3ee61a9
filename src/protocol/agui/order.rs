//! Which events a client that reads one run may be shown, and when.
//!
//! The official clients end a run with an error at an event that is out of place. These are their rules:
//!
//! 1. The first event is `RUN_STARTED` or `RUN_ERROR`, and a run starts once.
//! 2. Each part begins once under its id, and only a part that has begun may continue and end.
//! 3. A chunk without an id continues the chunk directly before it.
//! 4. Every part has ended before `RUN_FINISHED`. It or `RUN_ERROR` is the last event.

use tidings_agui::{
    Body, Event, ReasoningEnd, ReasoningMessageEnd, StepFinished, TextMessageEnd, ToolCallEnd,
};

/// A part of a run that begins and ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    Text,
    ToolCall,
    Reasoning,
    ReasoningMessage,
    Step,
}

/// The effect of an event on the state of its run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Transition {
    RunStarted,
    RunFinished,
    RunError,
    Begin(Part, Box<str>),
    GoOn(Part, Box<str>),
    End(Part, Box<str>),
    /// A piece that begins and ends by itself, and whether it can be the first.
    Chunk(Part, bool),
    Anything,
}

impl Transition {
    pub(super) fn of(body: &Body) -> Self {
        use Part::{Reasoning, ReasoningMessage, Step, Text, ToolCall};
        match body {
            Body::RunStarted(_) => Self::RunStarted,
            Body::RunFinished(_) => Self::RunFinished,
            Body::RunError(_) => Self::RunError,
            Body::StepStarted(step) => Self::Begin(Step, step.step_name.as_str().into()),
            Body::StepFinished(step) => Self::End(Step, step.step_name.as_str().into()),
            Body::TextMessageStart(text) => Self::Begin(Text, text.message_id.as_str().into()),
            Body::TextMessageContent(text) => Self::GoOn(Text, text.message_id.as_str().into()),
            Body::TextMessageEnd(text) => Self::End(Text, text.message_id.as_str().into()),
            Body::TextMessageChunk(chunk) => Self::Chunk(Text, chunk.message_id.is_some()),
            Body::ToolCallStart(call) => Self::Begin(ToolCall, call.tool_call_id.as_str().into()),
            Body::ToolCallArgs(call) => Self::GoOn(ToolCall, call.tool_call_id.as_str().into()),
            Body::ToolCallEnd(call) => Self::End(ToolCall, call.tool_call_id.as_str().into()),
            Body::ToolCallChunk(chunk) => {
                let names_it = chunk.tool_call_id.is_some() && chunk.tool_call_name.is_some();
                Self::Chunk(ToolCall, names_it)
            }
            Body::ReasoningStart(body) => Self::Begin(Reasoning, body.message_id.as_str().into()),
            Body::ReasoningEnd(body) => Self::End(Reasoning, body.message_id.as_str().into()),
            Body::ReasoningMessageStart(body) => {
                Self::Begin(ReasoningMessage, body.message_id.as_str().into())
            }
            Body::ReasoningMessageContent(body) => {
                Self::GoOn(ReasoningMessage, body.message_id.as_str().into())
            }
            Body::ReasoningMessageEnd(body) => {
                Self::End(ReasoningMessage, body.message_id.as_str().into())
            }
            Body::ReasoningMessageChunk(chunk) => {
                Self::Chunk(ReasoningMessage, chunk.message_id.is_some())
            }
            _ => Self::Anything,
        }
    }
}

/// Where a run is, as far as its client has seen.
#[derive(Debug, Default)]
pub(super) struct Order {
    started: bool,
    /// The parts that have begun and not ended, in the order in which they began.
    open: Vec<(Part, Box<str>)>,
    /// The part that a chunk without an id continues.
    chunk: Option<Part>,
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
}

impl Order {
    pub(super) fn has_started(&self) -> bool {
        self.started
    }

    pub(super) fn judge(&mut self, transition: &Transition) -> Verdict {
        let chunk = self.chunk.take();
        match transition {
            Transition::RunError => Verdict::ShowLast(Vec::new()),
            Transition::RunFinished if self.started => Verdict::ShowLast(self.ends()),
            Transition::RunFinished => Verdict::TooLate,
            Transition::RunStarted => self.show_if(!self.started, |order| order.started = true),
            _ if !self.started => Verdict::Hide,
            Transition::Begin(part, id) => {
                let is_new = self.find(*part, id).is_none();
                self.show_if(is_new, |order| order.open.push((*part, id.clone())))
            }
            Transition::GoOn(part, id) => {
                let is_open = self.find(*part, id).is_some();
                self.show_if(is_open, |_| {})
            }
            Transition::End(part, id) => match self.find(*part, id) {
                Some(at) => {
                    self.open.remove(at);
                    Verdict::Show
                }
                None => Verdict::Hide,
            },
            Transition::Chunk(part, can_be_first) => {
                let goes_on = chunk == Some(*part);
                self.show_if(*can_be_first || goes_on, |order| order.chunk = Some(*part))
            }
            Transition::Anything => Verdict::Show,
        }
    }

    fn show_if(&mut self, may: bool, then: impl FnOnce(&mut Self)) -> Verdict {
        if !may {
            return Verdict::Hide;
        }
        then(self);
        Verdict::Show
    }

    fn find(&self, part: Part, id: &str) -> Option<usize> {
        self.open
            .iter()
            .position(|(open, name)| *open == part && **name == *id)
    }

    /// The ends of all that is open, the last that began first.
    fn ends(&mut self) -> Vec<Event> {
        let end = |(part, id): (Part, Box<str>)| match part {
            Part::Text => Event::new(TextMessageEnd::new(id)),
            Part::ToolCall => Event::new(ToolCallEnd::new(id)),
            Part::Reasoning => Event::new(ReasoningEnd::new(id)),
            Part::ReasoningMessage => Event::new(ReasoningMessageEnd::new(id)),
            Part::Step => Event::new(StepFinished::new(id)),
        };
        self.open.drain(..).rev().map(end).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(order: &mut Order, event: &Event) -> bool {
        order.judge(&Transition::of(&event.body)) == Verdict::Show
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
        let Verdict::ShowLast(ends) = order.judge(&Transition::of(&finished.body)) else {
            panic!("it is the last");
        };
        let names: Vec<_> = ends.iter().map(Event::type_name).collect();
        assert_eq!(names, ["TEXT_MESSAGE_END", "STEP_FINISHED"]);
    }

    #[test]
    fn a_chunk_without_an_id_goes_on_with_the_one_before() {
        let mut order = Order::default();
        let step = |order: &mut Order, step| order.judge(&step) == Verdict::Show;
        assert!(step(&mut order, Transition::RunStarted));
        assert!(!step(&mut order, Transition::Chunk(Part::Text, false)));
        assert!(step(&mut order, Transition::Chunk(Part::Text, true)));
        assert!(step(&mut order, Transition::Chunk(Part::Text, false)));
        assert!(!step(&mut order, Transition::Chunk(Part::ToolCall, false)));
        assert!(!step(&mut order, Transition::Chunk(Part::Text, false)));
        assert!(step(&mut order, Transition::Chunk(Part::Text, true)));
        assert!(step(&mut order, Transition::Anything));
        assert!(!step(&mut order, Transition::Chunk(Part::Text, false)));
    }
}
