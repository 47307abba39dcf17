//! The one error of the developer's commands: what failed, why, and the cure.

use std::fmt;

/// The result of a step.
pub type Result<T> = std::result::Result<T, Error>;

/// What failed and where; the cause is the `source()`.
#[derive(Debug)]
pub struct Error {
    what: String,
    cure: Option<String>,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl Error {
    /// Makes an error that says what failed and where.
    pub fn new(what: impl Into<String>) -> Self {
        Self { what: what.into(), cure: None, source: None }
    }

    /// Adds what the reader can do about it.
    #[must_use]
    pub fn cure(mut self, cure: impl Into<String>) -> Self {
        self.cure = Some(cure.into());
        self
    }

    /// Adds the error that caused this one.
    #[must_use]
    pub fn because(mut self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// The whole chain of causes in one line, and the cure in a second one.
    #[must_use]
    pub fn full_text(&self) -> String {
        let mut text = self.what.clone();
        let mut cause = std::error::Error::source(self);
        while let Some(error) = cause {
            text.push_str(": ");
            text.push_str(&error.to_string());
            cause = error.source();
        }
        if let Some(cure) = &self.cure {
            text.push_str("\n  cure: ");
            text.push_str(cure);
        }
        text
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_ref().map(|source| &**source as &(dyn std::error::Error + 'static))
    }
}

/// Names the file or folder that an input or output error is about.
pub trait AtPath<T> {
    /// Turns the error into "cannot VERB PATH: cause".
    ///
    /// # Errors
    /// Whenever `self` is one.
    fn at(self, verb: &str, path: &std::path::Path) -> Result<T>;
}

impl<T> AtPath<T> for std::io::Result<T> {
    fn at(self, verb: &str, path: &std::path::Path) -> Result<T> {
        self.map_err(|error| Error::new(format!("cannot {verb} {}", path.display())).because(error))
    }
}
