//! Names of signals, as `kill` takes them.

use super::error::CliError;

/// The names of 1 to 31, in order.
const NAMES: [&str; 31] = [
    "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2", "PIPE",
    "ALRM", "TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG", "XCPU", "XFSZ",
    "VTALRM", "PROF", "WINCH", "IO", "PWR", "SYS",
];
/// The first real-time signal as engines number them; 32 and 33 belong to C libraries.
const RTMIN: i32 = 34;
/// The last signal there is.
const RTMAX: i32 = 64;

/// The number of `TERM`, `SIGTERM`, `sigterm`, `15`, `RTMIN+3`, `SIGRTMAX-1`. Zero is allowed: it asks whether the
/// process is there.
pub fn parse(text: &str) -> Result<i32, CliError> {
    number(text).ok_or_else(|| CliError::UnknownSignal { signal: text.to_owned() })
}

fn number(text: &str) -> Option<i32> {
    if let Ok(number) = text.parse() {
        return (0..=RTMAX).contains(&number).then_some(number);
    }
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    let alias = match name {
        "IOT" => "ABRT",
        "CLD" => "CHLD",
        "POLL" => "IO",
        name => name,
    };
    if let Some(index) = NAMES.iter().position(|known| *known == alias) {
        return i32::try_from(index + 1).ok();
    }
    let number = match name {
        "RTMIN" => RTMIN,
        "RTMAX" => RTMAX,
        _ => match (name.strip_prefix("RTMIN+"), name.strip_prefix("RTMAX-")) {
            (Some(more), _) => RTMIN.checked_add(more.parse().ok()?)?,
            (_, Some(less)) => RTMAX.checked_sub(less.parse().ok()?)?,
            _ => return None,
        },
    };
    (RTMIN..=RTMAX).contains(&number).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers() {
        for (text, want) in [
            ("TERM", libc::SIGTERM),
            ("SIGTERM", libc::SIGTERM),
            ("sigterm", libc::SIGTERM),
            ("15", 15),
            ("0", 0),
            ("KILL", libc::SIGKILL),
            ("9", 9),
            ("STKFLT", libc::SIGSTKFLT),
            ("WINCH", libc::SIGWINCH),
            ("IO", libc::SIGIO),
            ("POLL", libc::SIGPOLL),
            ("SYS", libc::SIGSYS),
            ("CLD", libc::SIGCHLD),
            ("IOT", libc::SIGIOT),
            ("RTMIN", 34),
            ("SIGRTMIN+3", 37),
            ("rtmin+30", 64),
            ("RTMAX", 64),
            ("RTMAX-14", 50),
            ("64", 64),
        ] {
            assert_eq!(number(text), Some(want), "{text}");
        }
        for text in
            ["", "FOO", "SIG", "65", "-1", "RTMIN+31", "RTMIN-1", "RTMAX+1", "RTMAX-31", "RTMIN+", "9x"]
        {
            assert_eq!(number(text), None, "{text}");
        }
        assert_eq!(parse("FOO").unwrap_err().to_string(), "unknown signal \"FOO\"");
    }
}
