//! One event for two broadcasters, serialised once.

use std::cell::OnceCell;

use crate::error::EncodeError;
use crate::event::{Data, Meta, ToSse};
use crate::protocol::context::wrap;

/// An event that is asked for its data and its meta once, when they are needed first.
///
/// A broadcaster asks for them only when it has somebody to reach. So nothing is made for nobody, without a question
/// beforehand, whose answer could have changed by the time it is used.
pub(super) struct Shared<'a, E> {
    event: &'a E,
    json: OnceCell<String>,
    meta: OnceCell<Meta<'a>>,
}

impl<'a, E: ToSse> Shared<'a, E> {
    pub(super) fn new(event: &'a E) -> Self {
        Self {
            event,
            json: OnceCell::new(),
            meta: OnceCell::new(),
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

    fn meta(&self) -> Meta<'_> {
        self.meta.get_or_init(|| self.event.meta()).clone()
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

    fn meta(&self) -> Meta<'_> {
        Meta {
            trace_parent: self.event.meta().trace_parent,
            ..Meta::default()
        }
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

        fn meta(&self) -> Meta<'_> {
            let parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
            Meta {
                trace_parent: parent.parse().ok(),
                ..Meta::default()
            }
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
        let parent = event.meta().trace_parent;
        assert!(parent.is_some());
        assert_eq!(own.trace_parent(), parent);
        assert_eq!(context.trace_parent(), parent);
        assert_eq!(own.as_bytes(), b"event: counted\ndata: 1\n\n");
        assert_eq!(
            context.as_bytes(),
            b"event: agui\ndata: {\"protocol\":\"agui\",\"event\":1}\n\n"
        );
    }
}
