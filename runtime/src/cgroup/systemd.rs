//! The systemd driver: a container's cgroup as a transient scope or slice, asked for over D-Bus.
//!
//! The resource limits go to systemd as properties, so that it does not undo them, and to the cgroup's files as with the
//! cgroupfs driver, for those that systemd has no property for.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::error::Mistake;

use super::dbus::{BusError, Connection, Message, Value, unix_path};
use super::{Cgroup, Error, Limits, Version};

const SYSTEMD: &str = "org.freedesktop.systemd1";
const MANAGER: &str = "org.freedesktop.systemd1.Manager";
const OBJECT: &str = "/org/freedesktop/systemd1";
const BUS: &str = "org.freedesktop.DBus";
const DEFAULT_PERIOD_US: u64 = 100_000;

/// The transient unit of a container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Unit {
    /// Such as `docker-4f2e.scope`.
    pub(super) name: String,
    /// The slice it is in, such as `system.slice`.
    pub(super) slice: String,
}

impl Unit {
    /// Reads `slice:prefix:name`; without a path the scope is `dhow-<id>.scope` in the usual slice.
    pub(super) fn parse(path: Option<&str>, id: &str, rootless: bool) -> Result<Unit, Error> {
        let usual = if rootless { "user.slice" } else { "system.slice" };
        let Some(path) = path else {
            return Ok(Unit { name: format!("dhow-{id}.scope"), slice: usual.to_owned() });
        };
        let wrong = || Error::CgroupsPath { path: path.to_owned(), wanted: "slice:prefix:name" };
        let parts: Vec<&str> = path.split(':').collect();
        let [slice, prefix, name] = parts[..] else { return Err(wrong()) };
        if name.is_empty() || path.contains('/') {
            return Err(wrong());
        }
        // A name that is a slice already is taken as it is.
        let name = match name.ends_with(".slice") {
            true => name.to_owned(),
            false => format!("{prefix}-{name}.scope"),
        };
        Ok(Unit { name, slice: if slice.is_empty() { usual } else { slice }.to_owned() })
    }

    fn is_slice(&self) -> bool {
        self.name.ends_with(".slice")
    }

    /// Stops the unit, which is no error if there is none.
    pub(super) fn stop(&self, rootless: bool) -> Result<(), Error> {
        let mut systemd = Systemd::connect(rootless)?;
        systemd.stop(&self.name)
    }
}

/// The path of a slice in the hierarchy, where `a-b.slice` is `a.slice/a-b.slice`.
pub(super) fn slice_path(slice: &str) -> Result<PathBuf, Error> {
    let wrong = || Error::Slice { name: slice.to_owned() };
    let stem =
        slice.strip_suffix(".slice").filter(|s| !s.is_empty() && !s.contains('/')).ok_or_else(wrong)?;
    let mut path = PathBuf::new();
    if stem == "-" {
        return Ok(path);
    }
    let mut prefix = String::new();
    for part in stem.split('-') {
        if part.is_empty() {
            return Err(wrong());
        }
        prefix.push_str(part);
        path.push(format!("{prefix}.slice"));
        prefix.push('-');
    }
    Ok(path)
}

/// The cgroup of the user's systemd, below which its slices are; relative to the hierarchy's root.
pub(super) fn user_manager_cgroup() -> Result<PathBuf, Error> {
    let group = Systemd::connect(true)?.manager_property("ControlGroup")?;
    Ok(PathBuf::from(group.trim_start_matches('/')))
}

/// What is needed to start the unit once there is a process.
#[derive(Debug)]
pub(super) struct Pending {
    pub(super) limits: Limits,
    pub(super) properties: UnitProperties,
}

/// Properties of the unit that the configuration's annotations ask for.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct UnitProperties(Vec<Property>);

type Property = (String, Value);

impl UnitProperties {
    /// Reads annotations `org.systemd.property.NAME` with values in GVariant text format, as runc does. `NAMESec` with a
    /// number of seconds becomes `NAMEUSec`.
    ///
    /// # Errors
    /// Every annotation with a wrong name or value, with its JSON pointer.
    pub fn parse<'a>(
        annotations: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Result<UnitProperties, Vec<Mistake>> {
        let mut properties = Vec::new();
        let mut mistakes = Vec::new();
        for (key, text) in annotations {
            let Some(name) = key.strip_prefix("org.systemd.property.") else { continue };
            let pointer = format!("/annotations/{}", key.replace('~', "~0").replace('/', "~1"));
            if name.len() < 3 || !name.bytes().all(|b| b.is_ascii_alphabetic()) {
                mistakes.push(Mistake::new(pointer, format!("{name:?} is not the name of a unit property")));
                continue;
            }
            let Some(value) = parse_gvariant(text) else {
                mistakes.push(Mistake::new(
                    pointer,
                    format!("{text:?} is not a value that can be sent to systemd"),
                ));
                continue;
            };
            let seconds =
                name.strip_suffix("Sec").filter(|stem| stem.ends_with(|c: char| c.is_ascii_lowercase()));
            match seconds {
                None => properties.push((name.to_owned(), value)),
                Some(stem) => match microseconds(&value) {
                    Some(us) => properties.push((format!("{stem}USec"), Value::U64(us))),
                    None => mistakes.push(Mistake::new(pointer, "is not a number of seconds")),
                },
            }
        }
        properties.sort_by(|a, b| a.0.cmp(&b.0));
        if mistakes.is_empty() { Ok(UnitProperties(properties)) } else { Err(mistakes) }
    }
}

fn microseconds(seconds: &Value) -> Option<u64> {
    let whole = match *seconds {
        Value::F64(n) if n >= 0.0 => return Some((n * 1e6) as u64),
        Value::Byte(n) => u64::from(n),
        Value::U16(n) => u64::from(n),
        Value::U32(n) => u64::from(n),
        Value::U64(n) => n,
        Value::I16(n) => u64::try_from(n).ok()?,
        Value::I32(n) => u64::try_from(n).ok()?,
        Value::I64(n) => u64::try_from(n).ok()?,
        _ => return None,
    };
    whole.checked_mul(1_000_000)
}

/// Parses what annotations use of the GVariant text format: booleans, strings, numbers, each with an optional type, and
/// arrays of these.
fn parse_gvariant(text: &str) -> Option<Value> {
    let text = text.trim();
    if let Some(rest) = text.strip_prefix('@') {
        let (signature, rest) = rest.split_once(' ')?;
        return typed(rest.trim(), signature);
    }
    let named = [
        ("boolean", "b"),
        ("byte", "y"),
        ("int16", "n"),
        ("uint16", "q"),
        ("int32", "i"),
        ("uint32", "u"),
        ("int64", "x"),
        ("uint64", "t"),
        ("double", "d"),
        ("string", "s"),
    ];
    for (name, signature) in named {
        if let Some(rest) = text.strip_prefix(name).filter(|r| r.starts_with(' ')) {
            return typed(rest.trim(), signature);
        }
    }
    if text.starts_with('[') {
        let first = elements(text)?.first().and_then(|e| parse_gvariant(e))?.signature();
        let known = named.iter().find(|(_, s)| *s == first)?.1;
        return array(text, known);
    }
    let inferred = match text {
        "true" | "false" => "b",
        _ if text.starts_with(['\'', '"']) => "s",
        _ if text.contains(['.', 'e', 'E']) && !text.starts_with("0x") => "d",
        _ => "i",
    };
    typed(text, inferred)
}

fn typed(text: &str, signature: &str) -> Option<Value> {
    fn integer<T: TryFrom<i128>>(text: &str) -> Option<T> {
        let (sign, digits) = match text.strip_prefix('-') {
            Some(rest) => (-1, rest),
            None => (1, text.strip_prefix('+').unwrap_or(text)),
        };
        let number = match digits.strip_prefix("0x") {
            Some(hex) => i128::from_str_radix(hex, 16).ok()?,
            None => digits.parse::<u64>().ok()?.into(),
        };
        T::try_from(sign * number).ok()
    }
    Some(match signature {
        "b" => Value::Bool(text.parse().ok()?),
        "y" => Value::Byte(integer(text)?),
        "n" => Value::I16(integer(text)?),
        "q" => Value::U16(integer(text)?),
        "i" => Value::I32(integer(text)?),
        "u" => Value::U32(integer(text)?),
        "x" => Value::I64(integer(text)?),
        "t" => Value::U64(integer(text)?),
        "d" => Value::F64(text.parse().ok()?),
        "s" => Value::Text(unquote(text)?),
        "as" => array(text, "s")?,
        "au" => array(text, "u")?,
        "at" => array(text, "t")?,
        "ai" => array(text, "i")?,
        "ay" => array(text, "y")?,
        "ab" => array(text, "b")?,
        _ => return None,
    })
}

fn array(text: &str, element: &'static str) -> Option<Value> {
    let items = elements(text)?.iter().map(|e| typed(e, element)).collect::<Option<Vec<_>>>()?;
    Some(Value::Array(element, items))
}

/// The elements of `[a, b]`, quotes respected.
fn elements(text: &str) -> Option<Vec<&str>> {
    let inner = text.strip_prefix('[')?.strip_suffix(']')?;
    let mut found = Vec::new();
    let (mut start, mut quote, mut escaped) = (0, None, false);
    for (i, c) in inner.char_indices() {
        match (quote, c) {
            _ if escaped => escaped = false,
            (Some(_), '\\') => escaped = true,
            (Some(q), c) if c == q => quote = None,
            (None, '\'' | '"') => quote = Some(c),
            (None, ',') => {
                found.push(inner[start..i].trim());
                start = i + 1;
            }
            _ => {}
        }
    }
    let last = inner[start..].trim();
    if !last.is_empty() || !found.is_empty() {
        found.push(last);
    }
    quote.is_none().then_some(found)
}

fn unquote(text: &str) -> Option<String> {
    let quote = text.chars().next().filter(|c| matches!(c, '\'' | '"'))?;
    let inner = text.strip_prefix(quote)?.strip_suffix(quote)?;
    let mut out = String::new();
    let mut chars = inner.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => out.push(match chars.next()? {
                'n' => '\n',
                't' => '\t',
                other => other,
            }),
            c if c == quote => return None,
            c => out.push(c),
        }
    }
    Some(out)
}

impl Cgroup {
    /// With the systemd driver: the unit gets these properties as well when it is started by [`Cgroup::attach`].
    #[must_use]
    pub fn with_unit_properties(mut self, properties: UnitProperties) -> Cgroup {
        if let Some(pending) = &mut self.pending {
            pending.properties = properties;
        }
        self
    }

    /// Starts the container's unit with its first process, and makes the directories that systemd does not.
    pub(super) fn start_unit(&mut self, pid: i32) -> Result<(), Error> {
        let (Some(unit), Some(pending)) = (self.location.unit.clone(), self.pending.take()) else {
            return Ok(());
        };
        let mut systemd = Systemd::connect(self.location.rootless)?;
        self.start_unit_at(&mut systemd, &unit, &pending, pid)?;
        self.make_beside_unit(&pending.limits)
    }

    fn start_unit_at(
        &self,
        systemd: &mut Systemd,
        unit: &Unit,
        pending: &Pending,
        pid: i32,
    ) -> Result<(), Error> {
        let v2 = self.location.version == Version::V2;
        let mut properties: Vec<Property> = Vec::new();
        let mut set = |name: &str, value: Value| properties.push((name.to_owned(), value));
        set("Description", Value::text(format!("dhow container {}", unit.name)));
        if unit.is_slice() {
            set("Wants", Value::Array("s", vec![Value::text(&unit.slice)]));
        } else {
            set("Slice", Value::text(&unit.slice));
            set("Delegate", Value::Bool(true));
            set("PIDs", Value::Array("u", vec![Value::U32(pid as u32)]));
        }
        for name in ["MemoryAccounting", "CPUAccounting", "TasksAccounting"] {
            set(name, Value::Bool(true));
        }
        set(if v2 { "IOAccounting" } else { "BlockIOAccounting" }, Value::Bool(true));
        set("DefaultDependencies", Value::Bool(false));
        properties.extend(resource_properties(systemd, &pending.limits, true)?);
        properties.extend(pending.properties.0.iter().cloned());
        systemd.start(&unit.name, &properties)
    }

    /// Moves a process into the unit where the user itself may not.
    pub(super) fn attach_by_systemd(&self, pid: i32) -> Result<(), Error> {
        match &self.location.unit {
            Some(unit) => Systemd::connect(self.location.rootless)?.attach(&unit.name, pid),
            None => Ok(()),
        }
    }

    /// Tells systemd of changed limits, so that it does not put its own idea of them back.
    pub(super) fn update_unit(&self, limits: &Limits) -> Result<(), Error> {
        let Some(unit) = &self.location.unit else { return Ok(()) };
        let mut systemd = Systemd::connect(self.location.rootless)?;
        let properties = resource_properties(&mut systemd, limits, false)?;
        match properties.is_empty() {
            true => Ok(()),
            false => systemd.set_properties(&unit.name, &properties),
        }
    }
}

/// The limits as unit properties.
fn resource_properties(
    systemd: &mut Systemd,
    limits: &Limits,
    starting: bool,
) -> Result<Vec<Property>, Error> {
    let v2 = limits.version == Version::V2;
    let mut properties: Vec<Property> = Vec::new();
    if let Some(policy) = &limits.devices {
        let (mode, list) = match policy.allow_list() {
            Some(list) => ("strict", list),
            // systemd knows lists of what is allowed and nothing else: our own filter does the rest.
            None => ("auto", Vec::new()),
        };
        let entry =
            |(node, access): (String, String)| Value::Struct(vec![Value::Text(node), Value::Text(access)]);
        // An empty list first takes back what an earlier one allowed.
        properties.push(("DeviceAllow".into(), Value::Array("(ss)", Vec::new())));
        properties.push(("DevicePolicy".into(), Value::text(mode)));
        if !list.is_empty() {
            properties
                .push(("DeviceAllow".into(), Value::Array("(ss)", list.into_iter().map(entry).collect())));
        }
    }
    let mut set = |name: &str, value: u64| properties.push((name.to_owned(), Value::U64(value)));
    let written = |file: &str| limits.writes.iter().find(|w| w.file == file).map(|w| w.value.as_str());
    // What is written to a file says what systemd has to know, converted already.
    let files: &[(&str, &str)] = match v2 {
        true => &[
            ("memory.max", "MemoryMax"),
            ("memory.low", "MemoryLow"),
            ("memory.min", "MemoryMin"),
            ("memory.high", "MemoryHigh"),
            ("memory.swap.max", "MemorySwapMax"),
            ("pids.max", "TasksMax"),
        ],
        false => &[
            ("memory.limit_in_bytes", "MemoryLimit"),
            ("cpu.shares", "CPUShares"),
            ("blkio.weight", "BlockIOWeight"),
            ("pids.max", "TasksMax"),
        ],
    };
    for (file, name) in files {
        match written(file).map(str::trim) {
            Some("max" | "-1") => set(name, u64::MAX),
            Some(n) => {
                if let Ok(n) = n.parse() {
                    set(name, n);
                }
            }
            None => {}
        }
    }
    let idle = v2 && written("cpu.idle") == Some("1") && systemd.version()? >= 252;
    if idle {
        // For systemd a weight of 0 is what the kernel calls idle.
        set("CPUWeight", 0);
    } else if let Some(weight) = written("cpu.weight").and_then(|w| w.trim().parse().ok()) {
        set("CPUWeight", weight);
    }
    let (quota, period) = match v2 {
        true => {
            let mut fields = written("cpu.max").unwrap_or_default().split_whitespace();
            (fields.next(), fields.next())
        }
        false => (written("cpu.cfs_quota_us"), written("cpu.cfs_period_us")),
    };
    let period: Option<u64> = period.and_then(|p| p.parse().ok());
    if period.is_some() && systemd.version()? >= 242 {
        set("CPUQuotaPeriodUSec", period.unwrap_or(DEFAULT_PERIOD_US));
    }
    if quota.is_some() || period.is_some() {
        // "max" and -1 are no numbers: no limit.
        let per_second = match quota.and_then(|q| q.parse::<u64>().ok()) {
            // systemd counts in whole per cents.
            Some(quota) => (quota.saturating_mul(1_000_000) / period.unwrap_or(DEFAULT_PERIOD_US))
                .max(1)
                .next_multiple_of(10_000),
            None => u64::MAX,
        };
        set("CPUQuotaPerSecUSec", per_second);
    }
    for (file, name) in [("cpuset.cpus", "AllowedCPUs"), ("cpuset.mems", "AllowedMemoryNodes")] {
        if let Some(bits) = written(file).and_then(range_bits) {
            if systemd.version()? >= 244 {
                let bytes = bits.into_iter().map(Value::Byte).collect();
                properties.push((name.to_owned(), Value::Array("y", bytes)));
            }
        }
    }
    // This one cannot be changed later.
    let oom = written("memory.oom.group").map(|v| if v.trim() == "1" { "kill" } else { "continue" });
    if let (true, Some(oom)) = (starting, oom) {
        if systemd.version()? >= 253 {
            properties.push(("OOMPolicy".into(), Value::text(oom)));
        }
    }
    Ok(properties)
}

/// `0-2,8` as a bit mask, lowest byte first.
fn range_bits(list: &str) -> Option<Vec<u8>> {
    let mut bits = Vec::new();
    for part in list.split(',').map(str::trim).filter(|p| !p.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (first.parse::<u16>().ok()?, last.parse::<u16>().ok()?);
        for bit in first..=last {
            let byte = usize::from(bit / 8);
            if bits.len() <= byte {
                bits.resize(byte + 1, 0_u8);
            }
            bits[byte] |= 1 << (bit % 8);
        }
    }
    (!bits.is_empty()).then_some(bits)
}

/// A connection to systemd, of the system or of the user.
#[derive(Debug)]
struct Systemd {
    connection: Connection,
    version: Option<u32>,
}

impl Systemd {
    fn connect(rootless: bool) -> Result<Systemd, Error> {
        Systemd::find(rootless).map_err(|source| Error::Systemd {
            action: "connect to",
            unit: if rootless { "the user's systemd" } else { "systemd" }.to_owned(),
            source,
        })
    }

    fn find(rootless: bool) -> Result<Systemd, BusError> {
        let env = |name: &str| std::env::var(name).ok().filter(|v| !v.is_empty());
        if rootless {
            let runtime = env("XDG_RUNTIME_DIR").map(PathBuf::from);
            let bus = env("DBUS_SESSION_BUS_ADDRESS").and_then(|address| unix_path(&address));
            let bus = bus.or_else(|| runtime.map(|dir| dir.join("bus")));
            return Systemd::on_bus(Connection::open(&bus.ok_or(BusError::NoUserBus)?)?);
        }
        if let Some(path) = env("DBUS_SYSTEM_BUS_ADDRESS").and_then(|address| unix_path(&address)) {
            return Systemd::on_bus(Connection::open(&path)?);
        }
        // systemd's own socket spares the way through the bus daemon, and is there when that is not.
        match Connection::open(Path::new("/run/systemd/private")) {
            Ok(connection) => Ok(Systemd { connection, version: None }),
            Err(_) => Systemd::on_bus(Connection::open(Path::new("/run/dbus/system_bus_socket"))?),
        }
    }

    /// Introduces the connection to a bus daemon, and asks systemd to send its signals there.
    fn on_bus(mut connection: Connection) -> Result<Systemd, BusError> {
        let driver = |member: &str| Message {
            path: "/org/freedesktop/DBus".into(),
            interface: BUS.into(),
            destination: BUS.into(),
            member: member.into(),
            ..Message::default()
        };
        connection.call(driver("Hello"))?;
        let rule = format!("type='signal',interface='{MANAGER}',member='JobRemoved'");
        connection.call(driver("AddMatch").with(&[Value::Text(rule)]))?;
        connection.call(manager_call("Subscribe"))?;
        Ok(Systemd { connection, version: None })
    }

    fn call(&mut self, action: &'static str, unit: &str, message: Message) -> Result<Message, Error> {
        self.connection.call(message).map_err(|source| Error::Systemd {
            action,
            unit: unit.to_owned(),
            source,
        })
    }

    /// Calls a method that begins a job and waits for the job's end.
    fn job(&mut self, action: &'static str, unit: &str, message: Message) -> Result<(), Error> {
        let reply = self.call(action, unit, message)?;
        let fail = |source| Error::Systemd { action, unit: unit.to_owned(), source };
        let job = reply.reader().text().map_err(fail)?;
        let result = self.connection.wait(|signal| {
            if signal.member != "JobRemoved" || signal.interface != MANAGER {
                return Ok(None);
            }
            let mut reader = signal.reader();
            reader.u32()?;
            let removed = reader.text()?;
            reader.text()?;
            let result = reader.text()?;
            Ok((removed == job).then(|| result.to_owned()))
        });
        match result.map_err(fail)?.as_str() {
            "done" => Ok(()),
            other => Err(Error::Job { action, unit: unit.to_owned(), result: other.to_owned() }),
        }
    }

    fn start(&mut self, unit: &str, properties: &[Property]) -> Result<(), Error> {
        let message = || {
            manager_call("StartTransientUnit").with(&[
                Value::text(unit),
                Value::text("replace"),
                property_list(properties),
                Value::Array("(sa(sv))", Vec::new()),
            ])
        };
        let result = match self.job("start", unit, message()) {
            // A unit of the same name that failed stays until somebody forgives it.
            Err(Error::Systemd { source: BusError::Remote { name, .. }, .. })
                if name == "org.freedesktop.systemd1.UnitExists" =>
            {
                self.reset_failed(unit);
                self.job("start", unit, message())
            }
            other => other,
        };
        if matches!(result, Err(Error::Job { .. })) {
            self.reset_failed(unit);
        }
        result
    }

    fn stop(&mut self, unit: &str) -> Result<(), Error> {
        let message = manager_call("StopUnit").with(&[Value::text(unit), Value::text("replace")]);
        let result = self.job("stop", unit, message);
        self.reset_failed(unit);
        match result {
            Err(Error::Systemd { source: BusError::Remote { name, .. }, .. })
                if name == "org.freedesktop.systemd1.NoSuchUnit" =>
            {
                Ok(())
            }
            // The unit is stopped whatever came of the job; what is left of the cgroup is removed by us.
            Err(Error::Job { .. }) => Ok(()),
            other => other,
        }
    }

    /// Lets systemd forget a unit that failed. Nothing depends on it, and usually there is none.
    fn reset_failed(&mut self, unit: &str) {
        let message = manager_call("ResetFailedUnit").with(&[Value::text(unit)]);
        let _ = self.connection.call(message);
    }

    fn set_properties(&mut self, unit: &str, properties: &[Property]) -> Result<(), Error> {
        let message = manager_call("SetUnitProperties").with(&[
            Value::text(unit),
            Value::Bool(true),
            property_list(properties),
        ]);
        self.call("change", unit, message).map(drop)
    }

    fn attach(&mut self, unit: &str, pid: i32) -> Result<(), Error> {
        let message = manager_call("AttachProcessesToUnit").with(&[
            Value::text(unit),
            Value::text("/"),
            Value::Array("u", vec![Value::U32(pid as u32)]),
        ]);
        self.call("attach a process to", unit, message).map(drop)
    }

    fn manager_property(&mut self, name: &str) -> Result<String, Error> {
        let message = Message {
            path: OBJECT.into(),
            interface: "org.freedesktop.DBus.Properties".into(),
            destination: SYSTEMD.into(),
            member: "Get".into(),
            ..Message::default()
        }
        .with(&[Value::text(MANAGER), Value::text(name)]);
        let reply = self.call("ask", "systemd", message)?;
        let text = reply.reader().variant_text().map(str::to_owned);
        text.map_err(|source| Error::Systemd { action: "ask", unit: "systemd".to_owned(), source })
    }

    /// The version of systemd, such as 252. Asked once, and only where a property depends on it.
    fn version(&mut self) -> Result<u32, Error> {
        if let Some(version) = self.version {
            return Ok(version);
        }
        let text = self.manager_property("Version")?;
        let digits: String = text.trim_start_matches('v').chars().take_while(char::is_ascii_digit).collect();
        // One that cannot be read is taken for a recent one.
        let version = digits.parse().unwrap_or(u32::MAX);
        self.version = Some(version);
        Ok(version)
    }
}

fn manager_call(member: &str) -> Message {
    Message {
        path: OBJECT.into(),
        interface: MANAGER.into(),
        destination: SYSTEMD.into(),
        member: member.into(),
        ..Message::default()
    }
}

fn property_list(properties: &[Property]) -> Value {
    let entry = |(name, value): &Property| {
        Value::Struct(vec![Value::text(name), Value::Variant(Box::new(value.clone()))])
    };
    Value::Array("(sv)", properties.iter().map(entry).collect())
}

#[cfg(test)]
mod tests;
