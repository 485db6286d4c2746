//! An error with what led to it, in one line.

use std::error::Error;

/// The error's own words and those of its causes, separated by colons. Libraries' own words are often too general to mend
/// anything by ("error sending request"); the reason is further down.
#[must_use]
pub(crate) fn with_causes(error: &(dyn Error + 'static)) -> String {
    causes(error).fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

/// The causes of an error, the nearest first.
pub(crate) fn causes<'a>(
    error: &'a (dyn Error + 'static),
) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(error.source(), |&cause| cause.source())
}
