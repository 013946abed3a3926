//! What the command and the fuzz targets share: the configuration, and the two ways to fail.

pub mod config;
pub mod logging;
pub mod token;

use std::process::ExitCode;

/// Why the command did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The configuration, or the command line, is wrong; nothing was opened.
    #[error("{0}")]
    Refused(String),
    /// It failed while it ran.
    #[error("millpond: {0}")]
    Failed(String),
}

impl Failure {
    pub fn exit_code(&self) -> ExitCode {
        match self {
            Failure::Refused(_) => ExitCode::from(2),
            Failure::Failed(_) => ExitCode::FAILURE,
        }
    }

    pub fn from_display(error: impl std::fmt::Display) -> Failure {
        Failure::Failed(error.to_string())
    }
}
