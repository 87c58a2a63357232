//! How a command fails: one line for a person, the causes below it, and an exit code that means something.

use std::{error::Error, fmt, io::Write, process::ExitCode};

/// What the exit code says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    /// A check, a verification or a step came out otherwise than it should.
    Failed = 1,
    /// The command line asks for something that makes no sense.
    Usage = 2,
    /// Something that the command needs does not answer or cannot be opened (`EX_UNAVAILABLE`).
    Unavailable = 69,
    /// The configuration is wrong (`EX_CONFIG`).
    Configuration = 78,
}

/// A command's failure.
#[derive(Debug)]
pub(crate) struct Failure {
    exit: Exit,
    line: String,
    cause: Option<Box<dyn Error + Send + Sync>>,
}

impl Failure {
    /// A failure that `line` explains by itself.
    pub(crate) fn new(exit: Exit, line: impl Into<String>) -> Self {
        Self { exit, line: line.into(), cause: None }
    }

    /// A failure with a cause. `line` says what was being done; the cause's own text follows it.
    pub(crate) fn because(exit: Exit, line: impl fmt::Display, cause: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        let cause = cause.into();
        Self { exit, line: format!("{line}: {cause}"), cause: Some(cause) }
    }

    /// The configuration is wrong; the error says where.
    pub(crate) fn configuration(cause: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        let cause = cause.into();
        Self { exit: Exit::Configuration, line: cause.to_string(), cause: Some(cause) }
    }

    /// The process's exit code.
    pub(crate) fn exit_code(&self) -> ExitCode {
        ExitCode::from(self.exit as u8)
    }

    /// Writes the failure to standard error.
    pub(crate) fn report(&self, verbose: bool) {
        let mut text = format!("countersign: {}\n", self.line);
        if verbose {
            let mut cause = self.cause.as_deref().and_then(Error::source);
            while let Some(error) = cause {
                text.push_str(&format!("  caused by: {error}\n"));
                cause = error.source();
            }
        }
        // With standard error closed there is nobody left to tell.
        std::io::stderr().lock().write_all(text.as_bytes()).ok();
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.line)
    }
}

impl Error for Failure {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.cause.as_deref().and_then(Error::source)
    }
}
