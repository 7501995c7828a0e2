//! The path of an error in a JSON document, such as `tokens[3]` or `device.name`.

use std::fmt::Write as _;

/// The path to a position in a document: one step for each enclosing object or array.
pub(super) struct JsonPath {
    steps: Vec<Step>,
}

enum Step {
    /// A member of an object; `None` before the first name.
    Member(Option<String>),
    /// An item of an array.
    Item(usize),
}

/// The path at a line and column as serde_json counts them (from 1, in bytes). `text` must be one valid document.
pub(super) fn at(text: &str, line: usize, column: usize) -> Option<JsonPath> {
    let start: usize = text.split_inclusive('\n').take(line.checked_sub(1)?).map(str::len).sum();
    let end = (start + column).min(text.len());
    let bytes = text.as_bytes();
    let mut steps = Vec::new();
    let mut awaits_name = false;
    let mut index = 0;
    while index < end {
        match bytes[index] {
            b'{' => {
                steps.push(Step::Member(None));
                awaits_name = true;
            }
            b'[' => {
                steps.push(Step::Item(0));
                awaits_name = false;
            }
            // serde_json reports an error about a whole object or array at its closing bracket, so the path stays
            // inside.
            b'}' | b']' if index + 1 < end => {
                steps.pop();
                awaits_name = false;
            }
            b',' => match steps.last_mut() {
                Some(Step::Item(item)) => *item += 1,
                _ => awaits_name = true,
            },
            b'"' => {
                let length = string_length(&bytes[index..])?;
                if awaits_name && let Some(Step::Member(name)) = steps.last_mut() {
                    *name = serde_json::from_str(text.get(index..index + length)?).ok();
                    awaits_name = false;
                }
                index += length - 1;
            }
            _ => {}
        }
        index += 1;
    }
    Some(JsonPath { steps })
}

impl JsonPath {
    /// The path, if it is not empty and every name in it is ordinary.
    pub(super) fn name(&self) -> Option<String> {
        join(&self.steps).filter(|path| !path.is_empty())
    }

    /// The path of the member `name` of the innermost object.
    pub(super) fn sibling(mut self, name: &str) -> Option<String> {
        if let Some(Step::Member(innermost)) = self.steps.last_mut() {
            *innermost = Some(name.to_owned());
            self.name()
        } else {
            None
        }
    }
}

fn join(steps: &[Step]) -> Option<String> {
    let mut path = String::new();
    for step in steps {
        match step {
            Step::Item(index) => write!(path, "[{index}]").ok()?,
            Step::Member(None) => {}
            Step::Member(Some(name)) if is_ordinary(name) => {
                let dot = if path.is_empty() { "" } else { "." };
                write!(path, "{dot}{name}").ok()?;
            }
            Step::Member(Some(_)) => return None,
        }
    }
    Some(path)
}

/// Whether a field of this API could have this name. Other names are not repeated in the answer.
fn is_ordinary(name: &str) -> bool {
    (1..=64).contains(&name.len()) && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

/// Length of the string literal at the start of `bytes`, quotes included.
fn string_length(bytes: &[u8]) -> Option<usize> {
    let mut index = 1;
    loop {
        match bytes.get(index)? {
            b'"' => return Some(index + 1),
            b'\\' => index += 2,
            _ => index += 1,
        }
    }
}
