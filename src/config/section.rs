//! The declaration of a section.

/// Declares a section of the configuration as a struct. Its `load` reads each field as the setting `PREFIX.FIELD`, or
/// `PREFIX.KEY` after `as`. The doc comment of a field is the setting's description in docs/configuration.md.
///
/// - `FIELD: TYPE = DEFAULT` and `FIELD: TYPE = DEFAULT, in RANGE`: a setting with a default.
/// - `FIELD: Option<TYPE>, else TEXT` and `…, in RANGE, else TEXT`: a setting without; `TEXT` says what then applies.
/// - `FIELD: TYPE, load EXPRESSION`: anything else.
macro_rules! section {
    (
        $(#[doc = $about:literal])*
        $Section:ident($read:ident $(, $argument:ident: $Argument:ty)*) in [$prefix:expr] $(as $title:literal)? {
            $(
                $(#[doc = $meaning:literal])*
                $field:ident $(as $key:literal)?: $Type:ty $(= $default:expr)? $(, in $range:expr)?
                    $(, else $otherwise:expr)? $(, load $load:expr)?;
            )*
        }
    ) => {
        $(#[doc = $about])*
        #[derive(Debug, Clone, PartialEq, Eq)]
        pub struct $Section {
            $($(#[doc = $meaning])* pub $field: $Type,)*
        }

        impl $Section {
            pub(super) fn load($read: &mut $crate::config::reader::Reader<'_> $(, $argument: $Argument)*) -> Self {
                $($read.section($title);)?
                Self {
                    $($field: section!(
                        @read $read, (format!("{}.{}", $prefix, section!(@key $field $(as $key)?))), (concat!($($meaning),*)),
                        [$($default)?] [$($range)?] [$($otherwise)?] [$($load)?]
                    ),)*
                }
            }
        }
    };
    (@key $field:ident) => { stringify!($field) };
    (@key $field:ident as $key:literal) => { $key };
    (@read $read:ident, $name:tt, $meaning:tt, [$default:expr] [] [] []) => { $read.setting($name, $default, $meaning) };
    (@read $read:ident, $name:tt, $meaning:tt, [$default:expr] [$range:expr] [] []) => {
        $read.within($name, $default, $range, $meaning)
    };
    (@read $read:ident, $name:tt, $meaning:tt, [] [] [$otherwise:expr] []) => {
        $read.optional($name, $otherwise, $meaning)
    };
    (@read $read:ident, $name:tt, $meaning:tt, [] [$range:expr] [$otherwise:expr] []) => {
        $read.optional_within($name, $otherwise, $range, $meaning)
    };
    (@read $read:ident, $name:tt, $meaning:tt, [] [] [] [$load:expr]) => { $load };
}

pub(super) use section;
