//! The types of settings: how each is parsed and printed.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;

use super::database::Pooler;
use super::log::LogFormat;
use super::raw::Raw;
use crate::domain::{Algorithm, Audience, TokenType};

/// Why a value is invalid.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// The value is not of the setting's type.
    Form,
    /// The value is outside the range.
    Range,
    /// Another reason. It completes a sentence that begins with the setting's name.
    Because(String),
}

/// A type of setting.
pub(super) trait Value: Sized {
    /// The remedy shown for an invalid value.
    const FORM: &'static str;

    fn read(raw: &Raw) -> Result<Self, Fault>;

    /// The value in the form that an environment variable takes.
    fn show(&self) -> String;
}

impl Value for bool {
    const FORM: &'static str = "write true or false";

    fn read(raw: &Raw) -> Result<Self, Fault> {
        match raw {
            Raw::Bool(bool) => Ok(*bool),
            Raw::Loose(text) => text.trim().parse().map_err(|_| Fault::Form),
            _ => Err(Fault::Form),
        }
    }

    fn show(&self) -> String {
        self.to_string()
    }
}

/// Implements `Value` for integer types, within the range of the type.
macro_rules! whole_number {
    ($($type:ty)*) => {$(
        impl Value for $type {
            const FORM: &'static str = "write a whole number";

            fn read(raw: &Raw) -> Result<Self, Fault> {
                raw.integer().and_then(|integer| Self::try_from(integer).ok()).ok_or(Fault::Form)
            }

            fn show(&self) -> String {
                self.to_string()
            }
        }
    )*};
}

whole_number!(u32 usize);

impl Value for Duration {
    const FORM: &'static str = "write a duration such as \"500ms\", \"10s\", \"5m\", \"1h30m\" or \"30d\"";

    fn read(raw: &Raw) -> Result<Self, Fault> {
        if raw.integer() == Some(0) {
            return Ok(Self::ZERO);
        }
        let duration = humantime::parse_duration(raw.text().ok_or(Fault::Form)?).map_err(|_| Fault::Form)?;
        if duration.subsec_nanos() % 1_000_000 == 0 {
            Ok(duration)
        } else {
            Err(Fault::Because("is finer than a millisecond".into()))
        }
    }

    fn show(&self) -> String {
        const UNITS: [(u128, &str); 5] = [(86_400_000, "d"), (3_600_000, "h"), (60_000, "m"), (1_000, "s"), (1, "ms")];
        let mut rest = self.as_millis();
        let mut shown = String::new();
        for (size, unit) in UNITS {
            if rest >= size {
                shown.push_str(&format!("{}{unit}", rest / size));
                rest %= size;
            }
        }
        if shown.is_empty() { "0s".to_owned() } else { shown }
    }
}

/// Implements `Value` for types that are parsed from text.
macro_rules! text {
    ($($type:ty, $form:literal, $parse:expr, $show:expr;)*) => {$(
        impl Value for $type {
            const FORM: &'static str = $form;

            fn read(raw: &Raw) -> Result<Self, Fault> {
                let parse: fn(&str) -> Result<Self, Fault> = $parse;
                parse(raw.text().ok_or(Fault::Form)?)
            }

            fn show(&self) -> String {
                let show: fn(&Self) -> String = $show;
                show(self)
            }
        }
    )*};
}

text! {
    SocketAddr, "write an address and a port such as \"127.0.0.1:8080\" or \"[::]:8080\"",
        |text| text.parse().map_err(|_| Fault::Form), ToString::to_string;
    IpNet, "write an address or a network such as \"10.0.0.0/8\" or \"2001:db8::1\"",
        |text| text.parse().or_else(|_| text.parse::<IpAddr>().map(Self::from)).map_err(|_| Fault::Form),
        ToString::to_string;
    PathBuf, "write a path",
        |text| if text.is_empty() || text.contains('\0') { Err(Fault::Form) } else { Ok(text.into()) },
        |path| path.display().to_string();
    Algorithm, "write one of ES256, EdDSA, RS256, PS256",
        |text| Self::parse(text).map_err(|_| Fault::Form), ToString::to_string;
    TokenType, "write \"at+jwt\" or \"JWT\"",
        |text| Self::parse(text).map_err(|_| Fault::Form), |token_type| token_type.as_str().to_owned();
    LogFormat, "write \"auto\", \"text\" or \"json\"",
        |text| Self::parse(text).map_err(|_| Fault::Form), |format| format.as_str().to_owned();
    Pooler, "write \"session\" or \"transaction\"",
        |text| Self::parse(text).map_err(|_| Fault::Form), |pooler| pooler.as_str().to_owned();
    Audience, "write 1 to 256 visible ASCII characters without \" and \\",
        |text| Self::parse(text).map_err(|_| Fault::Form), ToString::to_string;
}

impl<T: Value> Value for Vec<T> {
    const FORM: &'static str = T::FORM;

    fn read(raw: &Raw) -> Result<Self, Fault> {
        let items = raw.list().ok_or_else(|| Fault::Because("is not a list in brackets".to_owned()))?;
        let read = |item: &Raw| {
            T::read(item).map_err(|fault| {
                let reason =
                    if let Fault::Because(reason) = fault { format!(", which {reason}") } else { String::new() };
                Fault::Because(format!("has the item {}{reason}", item.quoted()))
            })
        };
        items.iter().map(read).collect()
    }

    fn show(&self) -> String {
        if self.is_empty() {
            return "none".to_owned();
        }
        self.iter().map(Value::show).collect::<Vec<_>>().join(",")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_printed_duration_parses_to_the_same_value(millis in 0..u64::from(u32::MAX) * 1000) {
            let duration = Duration::from_millis(millis);
            prop_assert_eq!(Duration::read(&Raw::Text(duration.show())), Ok(duration));
        }
    }

    #[test]
    fn a_duration_is_text_with_units() {
        let read = |text: &str| Duration::read(&Raw::Text(text.to_owned()));
        assert_eq!(read("1h30m"), Ok(Duration::from_secs(5400)));
        assert_eq!(read("30d"), Ok(Duration::from_secs(30 * 86_400)));
        assert_eq!(Duration::read(&Raw::Integer(0)), Ok(Duration::ZERO));
        for bad in ["", "5", "5 parsecs", "-5s", "1us", "99999999999999999999d"] {
            assert!(read(bad).is_err(), "{bad}");
        }
        assert!(Duration::read(&Raw::Integer(5)).is_err(), "a number without a unit");
    }
}
