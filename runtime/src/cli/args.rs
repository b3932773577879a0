//! Parsing of arguments, and the types of the static tables that it and the help text work from.
//!
//! The forms of Go's flag packages are taken, because callers were written against them: `--flag value`,
//! `--flag=value`, `-flag` with one dash for a long name, and `--switch=false`. Short switches may be joined (`-dt`).

use std::ffi::{OsStr, OsString};
use std::str::FromStr;

use lexopt::{Arg, Parser};

/// One flag.
pub struct Flag {
    /// Its long name, without dashes.
    pub long: &'static str,
    /// Its one-letter name.
    pub short: Option<char>,
    /// What its value is called; `None`: a switch.
    pub value: Option<&'static str>,
    /// Left out of the help: kept for old callers.
    pub hidden: bool,
    /// One line of help.
    pub about: &'static str,
}

/// A flag without a value.
pub const fn switch(long: &'static str, about: &'static str) -> Flag {
    Flag { long, short: None, value: None, hidden: false, about }
}

/// A flag with a value.
pub const fn value(long: &'static str, value: &'static str, about: &'static str) -> Flag {
    Flag { long, short: None, value: Some(value), hidden: false, about }
}

impl Flag {
    /// The flag with a one-letter name too.
    pub const fn or(mut self, short: char) -> Flag {
        self.short = Some(short);
        self
    }

    /// The flag left out of the help.
    pub const fn hidden(mut self) -> Flag {
        self.hidden = true;
        self
    }
}

/// How many operands a verb takes, and where its flags end.
pub struct Operands {
    /// How they are written in the usage line.
    pub usage: &'static str,
    /// At least so many.
    pub min: usize,
    /// At most so many.
    pub max: usize,
    /// What follows the first operand belongs to another program: its flags are none of ours.
    pub first_ends_flags: bool,
}

/// What is wrong with the arguments.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)]
pub enum ArgError {
    #[error("unknown flag {flag}{}", meant(nearest, "--"))]
    UnknownFlag { flag: String, nearest: Option<&'static str> },
    #[error("unknown command {verb:?}{}", meant(nearest, ""))]
    UnknownVerb { verb: String, nearest: Option<&'static str> },
    // The words "flag needs an argument" are how podman finds out that a runtime knows a flag.
    #[error("flag needs an argument: --{flag}")]
    MissingValue { flag: &'static str },
    #[error("invalid value {value:?} for flag --{flag}: {expected} expected")]
    InvalidValue { flag: &'static str, value: String, expected: &'static str },
    #[error("dhow-runtime: {verb:?} requires {} {wanted} argument(s)", how_many(bound))]
    Count { verb: &'static str, bound: Bound, wanted: usize },
}

/// Which bound on the number of operands was broken.
#[derive(Debug, PartialEq, Eq)]
pub enum Bound {
    /// More or fewer than there must be.
    Exact,
    /// Too few.
    Minimum,
    /// Too many.
    Maximum,
}

fn how_many(bound: &Bound) -> &'static str {
    match bound {
        Bound::Exact => "exactly",
        Bound::Minimum => "a minimum of",
        Bound::Maximum => "a maximum of",
    }
}

fn meant(nearest: &Option<&'static str>, dashes: &str) -> String {
    nearest.map_or_else(String::new, |name| format!("; did you mean {dashes}{name}?"))
}

/// The flags given.
#[derive(Debug, Default)]
pub struct Flags {
    given: Vec<(&'static str, OsString)>,
    #[cfg(debug_assertions)]
    known: Vec<&'static str>,
}

impl Flags {
    fn new(_table: &'static [Flag]) -> Flags {
        Flags {
            given: Vec::new(),
            #[cfg(debug_assertions)]
            known: _table.iter().map(|flag| flag.long).collect(),
        }
    }

    /// The value of `flag`, the last one if it was given several times.
    pub fn value(&self, flag: &'static str) -> Option<&OsStr> {
        #[cfg(debug_assertions)]
        debug_assert!(self.known.contains(&flag), "--{flag} is not in the table");
        self.given.iter().rev().find(|(name, _)| *name == flag).map(|(_, value)| value.as_os_str())
    }

    /// Every value of `flag`, in order.
    pub fn values(&self, flag: &'static str) -> impl Iterator<Item = &OsStr> {
        self.given.iter().filter(move |(name, _)| *name == flag).map(|(_, value)| value.as_os_str())
    }

    /// Whether the switch `flag` is on.
    pub fn is_on(&self, flag: &'static str) -> bool {
        self.value(flag).is_some_and(|value| value == "true")
    }

    /// Whether `flag` was given, whatever its value.
    pub fn is_given(&self, flag: &'static str) -> bool {
        self.value(flag).is_some()
    }

    /// The value of `flag`, unless it is empty: an empty value means the same as none.
    pub fn filled(&self, flag: &'static str) -> Option<&OsStr> {
        self.value(flag).filter(|value| !value.is_empty())
    }

    /// The value of `flag` as text, unless it is empty.
    pub fn text(&self, flag: &'static str) -> Result<Option<&str>, ArgError> {
        self.filled(flag).map(|value| text(flag, value)).transpose()
    }

    /// Every value of `flag` as text.
    pub fn texts(&self, flag: &'static str) -> Result<Vec<&str>, ArgError> {
        self.values(flag).map(|value| text(flag, value)).collect()
    }

    /// The value of `flag` as a number, unless it is empty.
    pub fn number<T: FromStr>(&self, flag: &'static str) -> Result<Option<T>, ArgError> {
        let Some(value) = self.text(flag)? else { return Ok(None) };
        value.parse().map(Some).map_err(|_| invalid(flag, value, "a number"))
    }
}

/// A value that does not fit its flag.
pub fn invalid(flag: &'static str, value: &str, expected: &'static str) -> ArgError {
    ArgError::InvalidValue { flag, value: value.to_owned(), expected }
}

fn text<'a>(flag: &'static str, value: &'a OsStr) -> Result<&'a str, ArgError> {
    value.to_str().ok_or_else(|| invalid(flag, &value.to_string_lossy(), "UTF-8"))
}

/// What was read of a command line.
#[derive(Debug)]
pub enum Parsed {
    /// Flags, and the operands as they stood.
    Flags(Flags, Vec<OsString>),
    /// `--help`.
    Help,
}

/// Reads the flags before the verb. The operands are the verb, or nothing.
pub fn globals(parser: &mut Parser, table: &'static [Flag]) -> Result<Parsed, ArgError> {
    read(parser, table, |operands| operands.len() == 1)
}

/// Reads the flags and operands of `verb`.
pub fn verb(
    parser: &mut Parser,
    verb: &'static str,
    table: &'static [Flag],
    operands: &Operands,
) -> Result<Parsed, ArgError> {
    let parsed = read(parser, table, |given| operands.first_ends_flags && given.len() == 1)?;
    let Parsed::Flags(flags, mut given) = parsed else { return Ok(parsed) };
    if operands.first_ends_flags {
        // After an operand nothing is pending, so this is an iterator over all that is left.
        given.extend(parser.raw_args().into_iter().flatten());
    }
    let count = |bound, wanted| Err(ArgError::Count { verb, bound, wanted });
    match given.len() {
        n if operands.min == operands.max && n != operands.min => count(Bound::Exact, operands.min),
        n if n < operands.min => count(Bound::Minimum, operands.min),
        n if n > operands.max => count(Bound::Maximum, operands.max),
        _ => Ok(Parsed::Flags(flags, given)),
    }
}

fn read(
    parser: &mut Parser,
    table: &'static [Flag],
    done: impl Fn(&[OsString]) -> bool,
) -> Result<Parsed, ArgError> {
    let mut flags = Flags::new(table);
    let mut operands = Vec::new();
    while !done(&operands) {
        if let Some((flag, attached)) = one_dash(parser, table) {
            let value = take(flag, attached, || {
                parser
                    .raw_args()
                    .ok()
                    .and_then(|mut raw| raw.next())
                    .ok_or(ArgError::MissingValue { flag: flag.long })
            })?;
            flags.given.push((flag.long, value));
            continue;
        }
        // The only error of `next` is a value joined to a flag that did not take it, and all are taken below.
        let Ok(Some(arg)) = parser.next() else { break };
        let (flag, is_letter) = match arg {
            Arg::Value(operand) => {
                operands.push(operand);
                continue;
            }
            Arg::Long(name) => match table.iter().find(|flag| flag.long == name) {
                Some(flag) => (flag, false),
                None if name == "help" => return Ok(Parsed::Help),
                None => return Err(unknown(format!("--{name}"), name, table)),
            },
            Arg::Short(letter) => match table.iter().find(|flag| flag.short == Some(letter)) {
                Some(flag) => (flag, true),
                None if letter == 'h' => return Ok(Parsed::Help),
                None => return Err(unknown(format!("-{letter}"), "", table)),
            },
        };
        // A letter of a switch followed by letters is a group of switches: what follows is not its value.
        let attached = if is_letter && flag.value.is_none() { None } else { parser.optional_value() };
        let value =
            take(flag, attached, || parser.value().map_err(|_| ArgError::MissingValue { flag: flag.long }))?;
        flags.given.push((flag.long, value));
    }
    Ok(Parsed::Flags(flags, operands))
}

/// The value of `flag`: what is attached to it, else `true` for a switch, else what follows.
fn take(
    flag: &'static Flag,
    attached: Option<OsString>,
    next: impl FnOnce() -> Result<OsString, ArgError>,
) -> Result<OsString, ArgError> {
    match (flag.value, attached) {
        (Some(_), Some(value)) => Ok(value),
        (Some(_), None) => next(),
        (None, None) => Ok("true".into()),
        (None, Some(value)) => match value.to_str() {
            Some("1" | "t" | "T" | "true" | "TRUE" | "True") => Ok("true".into()),
            Some("0" | "f" | "F" | "false" | "FALSE" | "False") => Ok("false".into()),
            _ => Err(invalid(flag.long, &value.to_string_lossy(), "true or false")),
        },
    }
}

/// Takes `-flag` or `-flag=value` if the next argument is that, for a long name.
fn one_dash(parser: &mut Parser, table: &'static [Flag]) -> Option<(&'static Flag, Option<OsString>)> {
    let mut raw = parser.try_raw_args()?;
    let text = raw.peek()?.to_str()?.strip_prefix('-')?;
    let (name, value) = match text.split_once('=') {
        Some((name, value)) => (name, Some(OsString::from(value))),
        None => (text, None),
    };
    let flag = table.iter().find(|flag| flag.long.len() > 1 && flag.long == name)?;
    raw.next();
    Some((flag, value))
}

fn unknown(flag: String, name: &str, table: &'static [Flag]) -> ArgError {
    let names = table.iter().filter(|flag| !flag.hidden).map(|flag| flag.long);
    ArgError::UnknownFlag { flag, nearest: nearest(name, names) }
}

/// The name closest to `word`, if one is close enough to have been meant.
pub fn nearest(word: &str, names: impl Iterator<Item = &'static str>) -> Option<&'static str> {
    let limit = match word.chars().count() {
        0..=1 => return None,
        2..=4 => 1,
        5..=8 => 2,
        _ => 3,
    };
    names
        .map(|name| (distance(word, name), name))
        .filter(|(far, _)| *far <= limit)
        .min()
        .map(|(_, name)| name)
}

/// How many letters must be inserted, removed, replaced or swapped with their neighbour (optimal string alignment).
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut before = vec![0; b.len() + 1];
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for i in 1..=a.len() {
        let mut row = vec![i; b.len() + 1];
        for j in 1..=b.len() {
            let cost = usize::from(a[i - 1] != b[j - 1]);
            row[j] = (last[j] + 1).min(row[j - 1] + 1).min(last[j - 1] + cost);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                row[j] = row[j].min(before[j - 2] + 1);
            }
        }
        before = std::mem::replace(&mut last, row);
    }
    last[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    static TABLE: &[Flag] = &[
        value("bundle", "DIR", "").or('b'),
        value("env", "VAR", "").or('e'),
        switch("detach", "").or('d'),
        switch("tty", "").or('t'),
        switch("no-pivot", ""),
        switch("all", "").or('a').hidden(),
    ];
    const ONE: Operands = Operands { usage: "ID", min: 1, max: 1, first_ends_flags: false };
    const EXEC: Operands = Operands { usage: "ID CMD", min: 1, max: usize::MAX, first_ends_flags: true };

    fn parse(args: &[&str], operands: &Operands) -> Result<(Flags, Vec<OsString>), ArgError> {
        match verb(&mut Parser::from_args(args), "test", TABLE, operands)? {
            Parsed::Flags(flags, given) => Ok((flags, given)),
            Parsed::Help => panic!("help for {args:?}"),
        }
    }

    #[test]
    fn every_form_of_a_value() {
        for args in [
            &["--bundle", "/b", "id"][..],
            &["--bundle=/b", "id"],
            &["-bundle", "/b", "id"],
            &["-bundle=/b", "id"],
            &["-b", "/b", "id"],
            &["-b=/b", "id"],
            &["-b/b", "id"],
            &["id", "--bundle", "/b"],
            &["--bundle", "no", "--bundle", "/b", "id"],
        ] {
            let (flags, given) = parse(args, &ONE).unwrap();
            assert_eq!(flags.value("bundle").unwrap(), "/b", "{args:?}");
            assert_eq!(given, ["id"], "{args:?}");
        }
    }

    #[test]
    fn a_value_may_look_like_a_flag_or_be_empty() {
        let (flags, _) = parse(&["--bundle", "-1", "id"], &ONE).unwrap();
        assert_eq!(flags.value("bundle").unwrap(), "-1");
        let (flags, _) = parse(&["-bundle", "--detach", "id"], &ONE).unwrap();
        assert_eq!(flags.value("bundle").unwrap(), "--detach");
        let (flags, _) = parse(&["--bundle=", "id"], &ONE).unwrap();
        assert!(flags.is_given("bundle") && flags.filled("bundle").is_none());
    }

    #[test]
    fn switches_and_groups() {
        let (flags, _) = parse(&["-dt", "--no-pivot=false", "id"], &ONE).unwrap();
        assert!(flags.is_on("detach") && flags.is_on("tty"));
        assert!(!flags.is_on("no-pivot") && flags.is_given("no-pivot"));
        let (flags, _) = parse(&["-no-pivot=1", "id"], &ONE).unwrap();
        assert!(flags.is_on("no-pivot") && !flags.is_on("detach"));
        assert_eq!(
            parse(&["--detach=maybe", "id"], &ONE).unwrap_err().to_string(),
            "invalid value \"maybe\" for flag --detach: true or false expected"
        );
    }

    #[test]
    fn repeated_values_keep_their_order() {
        let (flags, _) = parse(&["-e", "A=1", "--env", "B=2", "id"], &ONE).unwrap();
        assert_eq!(flags.texts("env").unwrap(), ["A=1", "B=2"]);
    }

    #[test]
    fn the_first_operand_ends_flags_where_a_command_follows() {
        let (flags, given) = parse(&["-t", "id", "ls", "-d", "--", "--env"], &EXEC).unwrap();
        assert_eq!(given, ["id", "ls", "-d", "--", "--env"]);
        assert!(!flags.is_on("detach") && !flags.is_given("env"));
        let (_, given) = parse(&["--", "-odd-id", "-d"], &EXEC).unwrap();
        assert_eq!(given, ["-odd-id", "-d"]);
    }

    #[test]
    fn what_is_missing_or_unknown_is_named() {
        let message = |args: &[&str], operands| parse(args, operands).unwrap_err().to_string();
        assert_eq!(message(&["--bundle"], &ONE), "flag needs an argument: --bundle");
        assert_eq!(message(&["-bundle"], &ONE), "flag needs an argument: --bundle");
        assert_eq!(message(&["--bundel", "x"], &ONE), "unknown flag --bundel; did you mean --bundle?");
        assert_eq!(message(&["--zzz"], &ONE), "unknown flag --zzz");
        assert_eq!(message(&["-x"], &ONE), "unknown flag -x");
        assert_eq!(message(&["--al"], &ONE), "unknown flag --al");
        assert_eq!(message(&[], &ONE), "dhow-runtime: \"test\" requires exactly 1 argument(s)");
        assert_eq!(message(&["a", "b"], &ONE), "dhow-runtime: \"test\" requires exactly 1 argument(s)");
        assert_eq!(message(&[], &EXEC), "dhow-runtime: \"test\" requires a minimum of 1 argument(s)");
        let two = Operands { usage: "", min: 1, max: 2, first_ends_flags: false };
        assert_eq!(
            message(&["a", "b", "c"], &two),
            "dhow-runtime: \"test\" requires a maximum of 2 argument(s)"
        );
    }

    #[test]
    fn help_wins_over_missing_operands() {
        for args in [&["--help"][..], &["-h"], &["-help"], &["id", "--help"]] {
            let parsed = verb(&mut Parser::from_args(args), "test", TABLE, &ONE);
            assert!(matches!(parsed, Ok(Parsed::Help)), "{args:?}: {parsed:?}");
        }
    }

    #[test]
    fn swapped_letters_are_one_mistake() {
        assert_eq!(distance("strat", "start"), 1);
        assert_eq!(distance("", "abc"), 3);
        assert_eq!(distance("kill", "kill"), 0);
        assert_eq!(nearest("x", ["xy"].into_iter()), None);
    }
}
