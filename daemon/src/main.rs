//! The program: arguments, configuration, log, socket, signals, exit code. What it does is [`conductord::run`].

use std::future::Future;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use conductor_core::config::{self, Config, ConfigError, Env, Flags, Scope};
use conductor_core::store::StoreError;
use conductord::reload::Reloader;
use conductord::socket::{ListenError, Listener};
use conductord::{Parts, Signals};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::signal::unix::{SignalKind, signal};

/// Another conductord has the root or the socket (sysexits: temporary failure).
const EXIT_IN_USE: u8 = 75;
/// The configuration is not valid (sysexits: configuration error).
const EXIT_CONFIG: u8 = 78;
/// Threads of the runtime: the work is waiting and small writes; agents run by themselves.
const WORKERS: usize = 2;
/// Threads for blocking reads and syncs. Idle ones end by themselves.
const BLOCKING_THREADS: usize = 256;

/// Runs AI coding agents and keeps them running.
#[derive(Debug, Parser)]
#[command(name = "conductord", version)]
struct Arguments {
    /// Configuration file [default: $CONDUCTOR_CONFIG, ~/.config/conductor/conductor.yaml, /etc/conductor/conductor.yaml]
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Folder of all data [default: $CONDUCTOR_ROOT, ~/.local/state/conductor/runs]
    #[arg(long, value_name = "FOLDER")]
    root: Option<PathBuf>,
    /// Unix socket [default: $CONDUCTOR_SOCKET, $XDG_RUNTIME_DIR/conductor/conductor.sock]
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,
    /// What is logged: error, warn, info, debug, trace, or target=level,…
    #[arg(long, value_name = "FILTER")]
    log_level: Option<String>,
    /// Use the places of a system service: /var/lib/conductor and /run/conductor
    #[arg(long)]
    system: bool,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Looks at the configuration and starts nothing
    Config {
        #[command(subcommand)]
        command: ConfigCommand,
    },
}

#[derive(Debug, Subcommand)]
enum ConfigCommand {
    /// Says whether the configuration is valid, and what is wrong with it
    Check,
    /// Prints the JSON Schema of the configuration file, for editors
    Schema,
}

/// Why the program ends, and its exit code.
struct Failure(u8, anyhow::Error);

impl<E: Into<anyhow::Error>> From<E> for Failure {
    fn from(error: E) -> Self {
        Self(1, error.into())
    }
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let result = match &arguments.command {
        Some(Command::Config { command: ConfigCommand::Schema }) => print_schema(),
        Some(Command::Config { command: ConfigCommand::Check }) => check_config(&arguments),
        None => serve(&arguments),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure(code, error)) => {
            eprintln!("conductord: {error:#}");
            ExitCode::from(code)
        }
    }
}

fn print_schema() -> Result<(), Failure> {
    println!("{}", serde_json::to_string_pretty(&config::schema())?);
    Ok(())
}

fn load(arguments: &Arguments, env: &Env) -> Result<(Config, Reloader), Failure> {
    let flags =
        Flags { root: arguments.root.clone(), socket: arguments.socket.clone(), log: arguments.log_level.clone() };
    let hint = |error: ConfigError| {
        let hint = "nothing was started; `conductord config check` checks the file again";
        Failure(EXIT_CONFIG, anyhow::anyhow!("the configuration is not valid\n{error}\nhint: {hint}"))
    };
    let (config, path) = Config::find_and_load(arguments.config.as_deref(), env).map_err(hint)?;
    let config = config.apply(&flags, env).map_err(hint)?;
    Ok((config, Reloader::new(path, flags, env.clone())))
}

fn check_config(arguments: &Arguments) -> Result<(), Failure> {
    let (_, reloader) = load(arguments, &config::environment())?;
    match reloader.path() {
        Some(path) => println!("{}: valid", path.display()),
        None => println!("no configuration file; the defaults are valid"),
    }
    Ok(())
}

fn serve(arguments: &Arguments) -> Result<(), Failure> {
    let env = config::environment();
    let (config, reloader) = load(arguments, &env)?;
    let places = |error: config::PathError| Failure(EXIT_CONFIG, error.into());
    let scope = Scope::of(arguments.system, nix::unistd::geteuid().as_raw());
    // Checked when the file was read; it is gone only if somebody has removed it since.
    let group =
        config.socket_gid().map_err(|problem| Failure(EXIT_CONFIG, anyhow::anyhow!("socket_group: {problem}")))?;
    let root = config.root.clone().map_or_else(|| scope.root(&env), Ok).map_err(places)?;
    let socket = config.socket.clone().map_or_else(|| scope.socket(&env), Ok).map_err(places)?;
    conductord::logging::start(&config.log).map_err(|error| Failure(EXIT_CONFIG, error.into()))?;
    raise_descriptor_limit();
    let opened = conductord::open(&root).map_err(in_use)?;
    // Before the runtime's threads: making the socket changes the umask for a moment.
    let listener = match Listener::from_service_manager().map_err(socket_failed)? {
        Some(listener) => listener,
        None => Listener::bind(&socket, group).map_err(socket_failed)?,
    };
    let parts = Parts { config, reloader, opened, listener, group, shim: shim(&env)? };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(WORKERS)
        .max_blocking_threads(BLOCKING_THREADS)
        .enable_all()
        .build()?;
    let ended = runtime.block_on(async { conductord::run(parts, signals()?).await.map_err(Failure::from) });
    // What still blocks (a read of a dead disk) must not hold up the end.
    runtime.shutdown_background();
    ended.map(|_| ())
}

fn in_use(error: StoreError) -> Failure {
    let code = if matches!(error, StoreError::Locked { .. }) { EXIT_IN_USE } else { 1 };
    Failure(code, error.into())
}

fn socket_failed(error: ListenError) -> Failure {
    let code = match error {
        ListenError::Path(_) => EXIT_CONFIG,
        ListenError::InUse(_) => EXIT_IN_USE,
        _ => 1,
    };
    Failure(code, error.into())
}

/// The shim program: `$CONDUCTOR_SHIM`, else beside this program.
fn shim(env: &Env) -> Result<PathBuf, Failure> {
    if let Some(path) = env.get("CONDUCTOR_SHIM").filter(|path| !path.is_empty()) {
        return Ok(path.into());
    }
    let path = std::env::current_exe()?.with_file_name("conductor-shim");
    if !path.is_file() {
        return Err(Failure(1, anyhow::anyhow!("{} is missing: it is installed beside conductord", path.display())));
    }
    Ok(path)
}

/// Connections, followed files and agents' pidfds take descriptors; the usual soft limit of 1,024 is a relic of select.
fn raise_descriptor_limit() {
    let raised =
        getrlimit(Resource::RLIMIT_NOFILE).and_then(|(_, hard)| setrlimit(Resource::RLIMIT_NOFILE, hard, hard));
    if let Err(error) = raised {
        tracing::warn!(%error, "the limit of open files could not be raised");
    }
}

/// SIGTERM and SIGINT end the daemon; SIGHUP reloads.
fn signals() -> Result<Signals<impl Future<Output = ()>>, std::io::Error> {
    let (mut term, mut int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let mut hup = signal(SignalKind::hangup())?;
    // One that waits is enough for several signals.
    let (sender, reload) = tokio::sync::mpsc::channel(1);
    tokio::spawn(async move {
        while hup.recv().await.is_some() {
            let _ = sender.try_send(());
        }
    });
    let shutdown = async move {
        tokio::select! {
            _ = term.recv() => tracing::info!("SIGTERM"),
            _ = int.recv() => tracing::info!("SIGINT"),
        }
    };
    Ok(Signals { shutdown, reload })
}
