//! The verbs of a container's life: create, start, run, state, list, kill, delete, pause, resume, ps.

use std::ffi::OsString;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use dhow_runtime::{CreateOptions, Error, Running};

use super::args::{Flags, invalid};
use super::error::CliError;
use super::output;
use super::{Session, absolute, foreground, relay, signal};

/// What `create`, `run` and `restore` say about the container to be.
pub fn create_options(session: &Session, flags: &Flags, foreground: bool) -> Result<CreateOptions, CliError> {
    session.make_state_directory()?;
    Ok(CreateOptions {
        bundle: absolute(flags.filled("bundle").map_or(Path::new("."), Path::new))?,
        terminal_socket: session.path(flags, "console-socket"),
        foreground,
        console_size: if foreground { relay::size_of_caller() } else { None },
        pid_file: session.path(flags, "pid-file"),
        pidfd_socket: session.path(flags, "pidfd-socket"),
        preserve_fds: flags.number("preserve-fds")?.unwrap_or(0),
        no_pivot: flags.is_on("no-pivot"),
        no_new_keyring: flags.is_on("no-new-keyring"),
        listen_fds: listen_fds(),
        notify_socket: notify_socket(),
    })
}

/// Where the supervisor waits to hear that the container is ready.
fn notify_socket() -> Option<PathBuf> {
    std::env::var_os("NOTIFY_SOCKET").filter(|path| !path.is_empty()).map(Into::into)
}

/// How many sockets systemd has passed to this very process.
fn listen_fds() -> u32 {
    let number = |name| std::env::var(name).ok()?.parse::<u32>().ok();
    match (number("LISTEN_FDS"), number("LISTEN_PID")) {
        (Some(count), Some(pid)) if pid == std::process::id() => count,
        _ => 0,
    }
}

/// Executes the runtime again from where no container can write to it.
pub fn seal() -> Result<(), CliError> {
    dhow_runtime::seal::reexecute().map_err(|source| CliError::Seal { source })
}

/// The result of a create; where the library refuses to go on with a binary that a container could reach, this program
/// executes itself again, sealed.
fn or_seal(result: Result<Running, Error>) -> Result<Running, CliError> {
    if matches!(result, Err(Error::NotSealed)) {
        seal()?;
    }
    Ok(result?)
}

/// `create`.
pub fn create(session: &Session, flags: &Flags, operands: &[OsString]) -> Result<u8, CliError> {
    let id = session.id(operands)?;
    let options = create_options(session, flags, false)?;
    if flags.is_on("plan") {
        return plan(session, id, &options);
    }
    let created = or_seal(session.runtime.create(id, &options))?;
    session.warn_of(&created.warnings);
    Ok(0)
}

/// `run`.
pub fn run(session: &Session, flags: &Flags, operands: &[OsString]) -> Result<u8, CliError> {
    let id = session.id(operands)?;
    let detach = flags.is_on("detach");
    let options = create_options(session, flags, !detach)?;
    if flags.is_on("plan") {
        return plan(session, id, &options);
    }
    if !detach && !flags.is_on("no-subreaper") {
        foreground::become_subreaper(&session.log);
    }
    let running = or_seal(session.runtime.run(id, &options))?;
    session.warn_of(&running.warnings);
    if detach {
        if let Some(notify) = &running.notify {
            let waited = notify.wait(running.pid, running.pidfd.as_fd());
            waited.map_err(|source| CliError::Foreground { what: "wait for readiness", source })?;
        }
        return Ok(0);
    }
    wait_and_delete(session, id, running, flags.is_on("keep"))
}

fn plan(session: &Session, id: &str, options: &CreateOptions) -> Result<u8, CliError> {
    let mut text = session.runtime.plan(id, options)?;
    if !text.ends_with('\n') {
        text.push('\n');
    }
    output::print(text.as_bytes())?;
    Ok(0)
}

/// Waits for a container in the foreground, and deletes it unless it is to be kept.
pub fn wait_and_delete(session: &Session, id: &str, running: Running, keep: bool) -> Result<u8, CliError> {
    let waited = foreground::wait(running, &session.log);
    if !keep {
        // After a failed wait the container may still run: nobody would stop it later.
        let deleted = session.runtime.delete(id, waited.is_err());
        // What the container said by its exit status matters more than what its removal says.
        if let Err(error) = deleted {
            session.log.warn(&super::error::message(&error.into()));
        }
    }
    waited
}

/// `start`.
pub fn start(session: &Session, _: &Flags, operands: &[OsString]) -> Result<u8, CliError> {
    session.runtime.start(session.id(operands)?, notify_socket().as_deref())?;
    Ok(0)
}

/// `state`.
pub fn state(session: &Session, _: &Flags, operands: &[OsString]) -> Result<u8, CliError> {
    output::print_pretty(&session.runtime.state(session.id(operands)?)?, "  ")?;
    Ok(0)
}

/// `list`.
pub fn list(session: &Session, flags: &Flags, _: &[OsString]) -> Result<u8, CliError> {
    let format = format(flags)?;
    let containers = session.runtime.list()?;
    if flags.is_on("quiet") {
        let ids: String = containers.iter().flat_map(|container| [container.id.as_str(), "\n"]).collect();
        output::print(ids.as_bytes())?;
        return Ok(0);
    }
    match format {
        Format::Json => output::print_json(&containers)?,
        Format::Table => output::print(output::list::table(&containers).as_bytes())?,
    }
    Ok(0)
}

/// `kill`.
pub fn kill(session: &Session, flags: &Flags, operands: &[OsString]) -> Result<u8, CliError> {
    let id = session.id(operands)?;
    let signal = match operands.get(1).filter(|signal| !signal.is_empty()) {
        Some(signal) => signal::parse(&signal.to_string_lossy())?,
        None => libc::SIGTERM,
    };
    session.runtime.kill(id, signal, flags.is_on("all"))?;
    Ok(0)
}

/// `delete`.
pub fn delete(session: &Session, flags: &Flags, operands: &[OsString]) -> Result<u8, CliError> {
    session.runtime.delete(session.id(operands)?, flags.is_on("force"))?;
    Ok(0)
}

/// `pause`.
pub fn pause(session: &Session, _: &Flags, operands: &[OsString]) -> Result<u8, CliError> {
    session.runtime.pause(session.id(operands)?)?;
    Ok(0)
}

/// `resume`.
pub fn resume(session: &Session, _: &Flags, operands: &[OsString]) -> Result<u8, CliError> {
    session.runtime.resume(session.id(operands)?)?;
    Ok(0)
}

/// `ps`.
pub fn ps(session: &Session, flags: &Flags, operands: &[OsString]) -> Result<u8, CliError> {
    let id = session.id(operands)?;
    let format = format(flags)?;
    let pids = session.runtime.processes(id)?;
    if format == Format::Json {
        output::print_json(&pids)?;
        return Ok(0);
    }
    let mut ps = Command::new("ps");
    match &operands[1..] {
        [] => ps.arg("-ef"),
        options => ps.args(options),
    };
    let result = ps.stdin(Stdio::null()).output().map_err(|source| CliError::Ps { source })?;
    if !result.status.success() {
        let output = [result.stdout, result.stderr].concat();
        return Err(CliError::PsFailed { output: String::from_utf8_lossy(&output).trim_end().to_owned() });
    }
    let lines = output::ps::filter(&String::from_utf8_lossy(&result.stdout), &pids)?;
    output::print(lines.as_bytes())?;
    Ok(0)
}

#[derive(PartialEq, Eq)]
enum Format {
    Table,
    Json,
}

fn format(flags: &Flags) -> Result<Format, CliError> {
    match flags.text("format")? {
        None | Some("table") => Ok(Format::Table),
        Some("json") => Ok(Format::Json),
        Some(other) => Err(invalid("format", other, "table or json").into()),
    }
}
