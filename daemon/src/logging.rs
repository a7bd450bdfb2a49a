//! Where the daemon's own log goes: standard error as text or JSON, or journald where systemd connected it.

use std::os::fd::AsFd;

use conductor_core::config::{LogConfig, LogFormat};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, fmt};

/// Why nothing is logged.
#[derive(Debug, thiserror::Error)]
pub enum LoggingError {
    /// `log.filter`, `--log-level` or `$CONDUCTOR_LOG` is no filter.
    #[error("{filter:?} is not a log filter: a level (error, warn, info, debug, trace) or target=level, …: {source}")]
    Filter {
        /// What was given.
        filter: String,
        /// What is wrong with it.
        source: tracing_subscriber::filter::ParseError,
    },
    /// There is a log already.
    #[error(transparent)]
    Set(#[from] tracing_subscriber::util::TryInitError),
}

/// Begins to log.
///
/// # Errors
/// See [`LoggingError`].
pub fn start(config: &LogConfig) -> Result<(), LoggingError> {
    let filter = EnvFilter::try_new(&config.filter)
        .map_err(|source| LoggingError::Filter { filter: config.filter.clone(), source })?;
    let registry = tracing_subscriber::registry().with(filter);
    let is_terminal = std::io::IsTerminal::is_terminal(&std::io::stderr());
    let colour = is_terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    match config.format {
        LogFormat::Json => registry.with(fmt::layer().json().with_writer(std::io::stderr)).try_init()?,
        LogFormat::Auto if is_journal() => match tracing_journald::layer() {
            Ok(journal) => registry.with(journal).try_init()?,
            // journald takes standard error too.
            Err(_) => {
                registry.with(fmt::layer().without_time().with_ansi(false).with_writer(std::io::stderr)).try_init()?
            }
        },
        LogFormat::Auto | LogFormat::Text => {
            registry.with(fmt::layer().with_ansi(colour).with_writer(std::io::stderr)).try_init()?;
        }
    }
    Ok(())
}

/// Whether standard error is the journal: `$JOURNAL_STREAM` names its device and inode (systemd.exec(5)).
fn is_journal() -> bool {
    let Ok(named) = std::env::var("JOURNAL_STREAM") else { return false };
    let Ok(meta) = nix::sys::stat::fstat(std::io::stderr().as_fd()) else { return false };
    named == format!("{}:{}", meta.st_dev, meta.st_ino)
}
