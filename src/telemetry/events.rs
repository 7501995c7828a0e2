//! `tracing` events as log lines. A line contains the fields of its event and of the enclosing spans, the innermost
//! first.

use std::fmt::{Debug, Write as _};
use std::io::Write as _;
use std::sync::Arc;

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;
use tracing_subscriber::registry::LookupSpan;

use super::escape::{write_bare, write_json, write_text};
use super::logger::{Form, Shared};
use crate::request_id::RequestId;

/// Reserved member names of a line. A field with such a name gets a trailing `_`.
const RESERVED: [&str; 3] = ["timestamp", "level", "target"];

/// The member with the request's id.
const REQUEST_ID: &str = "request_id";

/// Writes events to the log.
pub(super) struct Events(pub Arc<Shared>);

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Events {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        if let Some(span) = context.span(id) {
            let mut fields = Fields::new(self.0.form);
            attributes.record(&mut fields);
            span.extensions_mut().insert(fields);
        }
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        if let Some(span) = context.span(id)
            && let Some(fields) = span.extensions_mut().get_mut::<Fields>()
        {
            values.record(fields);
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let mut fields = Fields::new(self.0.form);
        event.record(&mut fields);
        for span in context.event_scope(event).into_iter().flatten() {
            if let Some(outer) = span.extensions().get::<Fields>() {
                fields.surround(outer);
            }
        }
        if let Some(id) = RequestId::current() {
            fields.set_request_id(id.as_str());
        }
        let mut line = Vec::with_capacity(256);
        fields.write(&mut line, &self.0, event);
        self.0.writer.push(&line);
    }
}

/// Fields whose values are already formatted for the line.
struct Fields {
    form: Form,
    message: Option<String>,
    /// The target of a record from the `log` crate, whose own metadata names only the bridge.
    target: Option<String>,
    values: Vec<(&'static str, Vec<u8>)>,
}

impl Fields {
    const fn new(form: Form) -> Self {
        Self { form, message: None, target: None, values: Vec::new() }
    }

    /// Adds the fields of an enclosing span, unless an inner span or the event has set them.
    fn surround(&mut self, outer: &Self) {
        for (name, value) in &outer.values {
            if !self.values.iter().any(|(known, _)| known == name) {
                self.values.push((name, value.clone()));
            }
        }
    }

    /// The id of the current request, unless the event sets one itself.
    fn set_request_id(&mut self, id: &str) {
        if self.values.iter().any(|(name, _)| *name == REQUEST_ID) {
            return;
        }
        let mut value = Vec::new();
        match self.form {
            Form::Json => write_json(&mut value, id),
            Form::Text => write_text(&mut value, id),
        }
        self.values.push((REQUEST_ID, value));
    }

    fn set(&mut self, field: &Field, write: impl FnOnce(&mut Vec<u8>)) {
        let mut value = Vec::new();
        write(&mut value);
        match self.values.iter_mut().find(|(name, _)| *name == field.name()) {
            Some((_, known)) => *known = value,
            None => self.values.push((field.name(), value)),
        }
    }

    fn set_text(&mut self, field: &Field, text: &str) {
        match (field.name(), self.form) {
            ("message", _) => self.message = Some(text.to_owned()),
            ("log.target", _) => self.target = Some(text.to_owned()),
            (name, _) if name.starts_with("log.") => {}
            (_, Form::Json) => self.set(field, |value| write_json(value, text)),
            (_, Form::Text) => self.set(field, |value| write_text(value, text)),
        }
    }

    fn set_bare(&mut self, field: &Field, number: &dyn std::fmt::Display) {
        if !field.name().starts_with("log.") {
            self.set(field, |value| value.extend_from_slice(number.to_string().as_bytes()));
        }
    }

    fn write(&self, line: &mut Vec<u8>, shared: &Shared, event: &Event<'_>) {
        let metadata = event.metadata();
        let (now, level) = (shared.clock.now(), metadata.level().as_str());
        let target = self.target.as_deref().unwrap_or_else(|| metadata.target());
        let message = self.message.as_deref().unwrap_or_default();
        match self.form {
            Form::Json => {
                line.extend_from_slice(b"{\"timestamp\":\"");
                let _ = write!(line, "{now}");
                line.extend_from_slice(b"\",\"level\":\"");
                line.extend_from_slice(level.as_bytes());
                line.extend_from_slice(b"\",\"target\":");
                write_json(line, target);
                line.extend_from_slice(b",\"message\":");
                write_json(line, message);
                for (name, value) in &self.values {
                    line.push(b',');
                    write_json(line, &member(name));
                    line.push(b':');
                    line.extend_from_slice(value);
                }
                line.extend_from_slice(b"}\n");
            }
            Form::Text => {
                let _ = write!(line, "{now}");
                line.extend_from_slice(format!(" {level:5} ").as_bytes());
                write_bare(line, target);
                line.push(b':');
                if !message.is_empty() {
                    line.push(b' ');
                    write_bare(line, message);
                }
                for (name, value) in &self.values {
                    line.push(b' ');
                    write_bare(line, name);
                    line.push(b'=');
                    line.extend_from_slice(value);
                }
                line.push(b'\n');
            }
        }
    }
}

fn member(name: &str) -> String {
    if RESERVED.contains(&name) { format!("{name}_") } else { name.to_owned() }
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        let mut text = String::new();
        let _ = write!(text, "{value:?}");
        self.set_text(field, &text);
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.set_text(field, value);
    }

    fn record_error(&mut self, field: &Field, error: &(dyn std::error::Error + 'static)) {
        let causes = std::iter::successors(error.source(), |error| error.source());
        let text = causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"));
        self.set_text(field, &text);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.set_bare(field, &value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.set_bare(field, &value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.set_bare(field, &value);
    }

    /// JSON cannot represent infinity.
    fn record_f64(&mut self, field: &Field, value: f64) {
        if value.is_finite() {
            self.set_bare(field, &value);
        } else {
            self.set_text(field, &value.to_string());
        }
    }
}
