//! One event for two broadcasters, serialised once.

use std::cell::OnceCell;

use crate::error::EncodeError;
use crate::event::{Data, Tag, ToSse};
use crate::protocol::context::wrap;
use crate::trace::TraceParent;

/// An event whose data, JSON, is made when it is needed first and copied from then on.
///
/// A broadcaster asks for data only when it has somebody to reach. So nothing is made for nobody, without a question
/// beforehand, whose answer could have changed by the time it is used.
pub(super) struct Shared<'a, E> {
    event: &'a E,
    json: OnceCell<String>,
}

impl<'a, E: ToSse> Shared<'a, E> {
    pub(super) fn new(event: &'a E) -> Self {
        Self {
            event,
            json: OnceCell::new(),
        }
    }

    fn json(&self) -> Result<&str, EncodeError> {
        if let Some(json) = self.json.get() {
            return Ok(json);
        }
        let mut json = Vec::with_capacity(256);
        self.event.data(&mut Data::new(&mut json))?;
        let json = String::from_utf8(json).map_err(|error| error.utf8_error())?;
        Ok(self.json.get_or_init(|| json))
    }
}

/// As the protocol's own streams get it.
impl<E: ToSse> ToSse for Shared<'_, E> {
    fn event(&self) -> Option<&str> {
        self.event.event()
    }

    fn key(&self) -> Option<&str> {
        self.event.key()
    }

    fn tag(&self) -> Option<Tag> {
        self.event.tag()
    }

    fn note(&self) -> Option<String> {
        self.event.note()
    }

    fn trace_parent(&self) -> Option<TraceParent> {
        self.event.trace_parent()
    }

    fn data(&self, data: &mut Data<'_>) -> Result<(), EncodeError> {
        data.text(self.json()?);
        Ok(())
    }
}

/// An event as context streams get it.
pub(super) struct Wrapped<'a, E> {
    pub(super) protocol: &'static str,
    pub(super) event: &'a E,
}

impl<E: ToSse> ToSse for Wrapped<'_, E> {
    fn event(&self) -> Option<&str> {
        Some(self.protocol)
    }

    fn trace_parent(&self) -> Option<TraceParent> {
        self.event.trace_parent()
    }

    fn data(&self, data: &mut Data<'_>) -> Result<(), EncodeError> {
        wrap(self.protocol, data, |data| self.event.data(data))
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;
    use crate::frame::Frame;

    /// Counts how often its data is made.
    #[derive(Default)]
    struct Counting(Cell<u32>);

    impl ToSse for Counting {
        fn event(&self) -> Option<&str> {
            Some("counted")
        }

        fn trace_parent(&self) -> Option<TraceParent> {
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
                .parse()
                .ok()
        }

        fn data(&self, data: &mut Data<'_>) -> Result<(), EncodeError> {
            self.0.set(self.0.get() + 1);
            data.json(&self.0.get())
        }
    }

    #[test]
    fn data_is_made_once_and_not_before_it_is_asked_for() {
        let event = Counting::default();
        let shared = Shared::new(&event);
        assert_eq!(event.0.get(), 0);
        let own = Frame::encode(&shared).expect("JSON");
        let wrapped = Wrapped {
            protocol: "agui",
            event: &shared,
        };
        let context = Frame::encode(&wrapped).expect("JSON");
        assert_eq!(event.0.get(), 1);
        assert!(event.trace_parent().is_some());
        assert_eq!(own.trace_parent(), event.trace_parent());
        assert_eq!(context.trace_parent(), event.trace_parent());
        assert_eq!(own.as_bytes(), b"event: counted\ndata: 1\n\n");
        assert_eq!(
            context.as_bytes(),
            b"event: agui\ndata: {\"protocol\":\"agui\",\"event\":1}\n\n"
        );
    }
}
