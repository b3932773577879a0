//! `events`: usage figures and memory exhaustion, one JSON object a line.

use std::ffi::OsString;
use std::io;
use std::time::{Duration, Instant};

use dhow_runtime::cgroup::{OomEvent, Stats};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use serde::Serialize;

use super::args::{Flags, invalid};
use super::error::CliError;
use super::{Session, output};

#[derive(Serialize)]
struct Event<'a> {
    r#type: &'static str,
    id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<Stats>,
}

/// `events`.
pub fn events(session: &Session, flags: &Flags, operands: &[OsString]) -> Result<u8, CliError> {
    let id = session.id(operands)?;
    let interval = match flags.text("interval")? {
        None => Duration::from_secs(5),
        Some(text) => duration(text)
            .filter(|interval| !interval.is_zero())
            .ok_or_else(|| invalid("interval", text, "a duration greater than 0, such as 5s,"))?,
    };
    if session.runtime.state(id)?.status == "stopped" {
        return Err(CliError::NotRunning { id: id.to_owned() });
    }
    let stats = || -> Result<(), CliError> {
        let data = Some(session.runtime.stats(id)?);
        output::print_json(&Event { r#type: "stats", id, data })
    };
    if flags.is_on("stats") {
        stats()?;
        return Ok(0);
    }
    let failed = |source| dhow_runtime::Error::Cgroup { id: id.to_owned(), source };
    let mut watch = session.runtime.oom_events(id)?;
    let mut next = Instant::now() + interval;
    loop {
        let left = next.saturating_duration_since(Instant::now());
        if left.is_zero() {
            next += interval;
            // Figures that cannot be had this time do not end the watch: the container may just be ending.
            match stats() {
                Ok(()) => {}
                Err(error @ CliError::Output { .. }) => return Err(error),
                Err(error) => session.log.warn(&super::error::message(&error)),
            }
            continue;
        }
        let mut fds = [PollFd::new(&watch, PollFlags::IN | PollFlags::PRI)];
        let timeout = Timespec { tv_sec: left.as_secs() as _, tv_nsec: left.subsec_nanos().into() };
        match rustix::event::poll(&mut fds, Some(&timeout)) {
            Ok(0) | Err(Errno::INTR) => continue,
            Ok(_) => {}
            Err(errno) => {
                return Err(CliError::Foreground { what: "wait for events", source: io::Error::from(errno) });
            }
        }
        loop {
            match watch.next_event().map_err(failed)? {
                OomEvent::Oom => output::print_json(&Event { r#type: "oom", id, data: None })?,
                OomEvent::Nothing => break,
                OomEvent::Gone => return Ok(0),
            }
        }
    }
}

/// A duration as Go writes it: `5s`, `1m30s`, `1.5h`, `500ms`.
fn duration(text: &str) -> Option<Duration> {
    if text == "0" {
        return Some(Duration::ZERO);
    }
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    if rest.is_empty() {
        return None;
    }
    let mut sum = Duration::ZERO;
    while !rest.is_empty() {
        let number_end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, tail) = rest.split_at(number_end);
        let unit_end = tail.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(unit_end);
        let seconds = match unit {
            "ns" => 1e-9,
            "us" | "\u{b5}s" | "\u{3bc}s" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return None,
        };
        let part = Duration::try_from_secs_f64(number.parse::<f64>().ok()? * seconds).ok()?;
        sum = sum.checked_add(part)?;
        rest = tail;
    }
    Some(sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        for (text, want) in [
            ("5s", Some(Duration::from_secs(5))),
            ("1m30s", Some(Duration::from_secs(90))),
            ("500ms", Some(Duration::from_millis(500))),
            ("1.5h", Some(Duration::from_secs(5400))),
            ("0", Some(Duration::ZERO)),
            ("0s", Some(Duration::ZERO)),
            ("5", None),
            ("", None),
            ("s", None),
            ("-1s", None),
            ("5x", None),
            ("1e400s", None),
        ] {
            assert_eq!(duration(text), want, "{text:?}");
        }
    }

    #[test]
    fn events_have_data_only_when_there_is_some() {
        let text = |event: &Event<'_>| serde_json::to_string(event).unwrap();
        assert_eq!(text(&Event { r#type: "oom", id: "c", data: None }), r#"{"type":"oom","id":"c"}"#);
        let text = text(&Event { r#type: "stats", id: "c", data: Some(Stats::default()) });
        assert!(text.starts_with(r#"{"type":"stats","id":"c","data":{"cpu":{"#), "{text}");
    }
}
