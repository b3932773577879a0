//! What a container uses, in the form of runc's `events --stats`: the types serialise to its JSON.
//!
//! A file that is not there leaves its fields at zero: the controller is not enabled, or the kernel is older.

use std::collections::BTreeMap;

use serde::Serialize;

use super::file::Dir;
use super::{Cgroup, Error, Version, is_gone};

/// `CONFIG_HZ` as user space sees it: fixed at 100 on every Linux.
const NS_PER_TICK: u64 = 1_000_000_000 / 100;
const US: u64 = 1_000;

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// Everything that is counted for a container.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Stats {
    /// CPU time and throttling.
    pub cpu: Cpu,
    /// The CPUs and memory nodes (v1 only, as in runc).
    pub cpuset: CpuSet,
    /// Memory and swap.
    pub memory: Memory,
    /// Processes and threads.
    pub pids: Pids,
    /// Block I/O.
    pub blkio: Blkio,
    /// Huge pages by page size, such as `2MB`.
    pub hugetlb: BTreeMap<String, Hugetlb>,
    /// Resource director figures; the cgroup has none of them.
    pub intel_rdt: BTreeMap<String, serde_json::Value>,
    /// Figures of network interfaces; the cgroup has none of them.
    pub network_interfaces: Option<Vec<serde_json::Value>>,
}

/// One line of a pressure file: shares of time in per cent, and the total in microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct PressureLine {
    /// Over the last 10 seconds, in per cent.
    pub avg10: f64,
    /// Over the last 60 seconds, in per cent.
    pub avg60: f64,
    /// Over the last 300 seconds, in per cent.
    pub avg300: f64,
    /// Since the cgroup was made, in microseconds.
    pub total: u64,
}

/// Pressure stall information.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Pressure {
    /// Time in which at least one task waited.
    #[serde(skip_serializing_if = "is_default")]
    pub some: PressureLine,
    /// Time in which all tasks waited.
    #[serde(skip_serializing_if = "is_default")]
    pub full: PressureLine,
}

/// CPU time and throttling.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Cpu {
    /// CPU time used.
    #[serde(skip_serializing_if = "is_default")]
    pub usage: CpuUsage,
    /// What the quota took away.
    #[serde(skip_serializing_if = "is_default")]
    pub throttling: Throttling,
    /// Pressure (v2).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub psi: Option<Pressure>,
}

/// CPU time in nanoseconds.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct CpuUsage {
    /// In total.
    #[serde(skip_serializing_if = "is_default")]
    pub total: u64,
    /// On each CPU (v1).
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub percpu: Vec<u64>,
    /// In the kernel, on each CPU (v1).
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub percpu_kernel: Vec<u64>,
    /// In user mode, on each CPU (v1).
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub percpu_user: Vec<u64>,
    /// In the kernel.
    pub kernel: u64,
    /// In user mode.
    pub user: u64,
}

/// What the CPU quota took away.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Throttling {
    /// Periods in which the container ran.
    #[serde(skip_serializing_if = "is_default")]
    pub periods: u64,
    /// Those in which it was throttled.
    #[serde(skip_serializing_if = "is_default")]
    pub throttled_periods: u64,
    /// For how long, in nanoseconds.
    #[serde(skip_serializing_if = "is_default")]
    pub throttled_time: u64,
}

/// The CPUs and memory nodes, and the flags of the v1 controller.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[expect(missing_docs, reason = "each field is the file of the same name: see cpuset(7)")]
pub struct CpuSet {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub cpus: Vec<u16>,
    pub cpu_exclusive: u64,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub mems: Vec<u16>,
    pub mem_hardwall: u64,
    pub mem_exclusive: u64,
    pub memory_migrate: u64,
    pub memory_spread_page: u64,
    pub memory_spread_slab: u64,
    pub memory_pressure: u64,
    pub sched_load_balance: u64,
    pub sched_relax_domain_level: i64,
}

/// One kind of memory, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct MemoryEntry {
    /// The limit; the largest number if there is none.
    pub limit: u64,
    /// In use now.
    #[serde(skip_serializing_if = "is_default")]
    pub usage: u64,
    /// The most that was in use.
    #[serde(skip_serializing_if = "is_default")]
    pub max: u64,
    /// How often the limit was hit (v1).
    pub failcnt: u64,
}

/// Memory and swap.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Memory {
    /// Page cache, in bytes.
    #[serde(skip_serializing_if = "is_default")]
    pub cache: u64,
    /// Memory.
    #[serde(skip_serializing_if = "is_default")]
    pub usage: MemoryEntry,
    /// Memory and swap together.
    #[serde(skip_serializing_if = "is_default")]
    pub swap: MemoryEntry,
    /// Kernel memory (v1).
    #[serde(skip_serializing_if = "is_default")]
    pub kernel: MemoryEntry,
    /// TCP buffers (v1).
    #[serde(rename = "kernelTCP", skip_serializing_if = "is_default")]
    pub kernel_tcp: MemoryEntry,
    /// Every line of `memory.stat`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub raw: BTreeMap<String, u64>,
    /// Pressure (v2).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub psi: Option<Pressure>,
}

/// Processes and threads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Pids {
    /// Now.
    #[serde(skip_serializing_if = "is_default")]
    pub current: u64,
    /// At most; 0 if there is no limit.
    #[serde(skip_serializing_if = "is_default")]
    pub limit: u64,
}

/// One figure of one block device.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct BlkioEntry {
    /// Major device number.
    #[serde(skip_serializing_if = "is_default")]
    pub major: u64,
    /// Minor device number.
    #[serde(skip_serializing_if = "is_default")]
    pub minor: u64,
    /// `Read`, `Write`, and on v1 others.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub op: String,
    /// Bytes, operations, nanoseconds or sectors.
    #[serde(skip_serializing_if = "is_default")]
    pub value: u64,
}

/// Block I/O by device.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Blkio {
    /// Bytes moved.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub io_service_bytes_recursive: Vec<BlkioEntry>,
    /// Operations.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub io_serviced_recursive: Vec<BlkioEntry>,
    /// Operations that wait (v1 with BFQ or CFQ).
    #[serde(rename = "ioQueueRecursive", skip_serializing_if = "Vec::is_empty")]
    pub io_queued_recursive: Vec<BlkioEntry>,
    /// Time of operations (v1 with BFQ or CFQ).
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub io_service_time_recursive: Vec<BlkioEntry>,
    /// Time that operations waited (v1 with BFQ or CFQ).
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub io_wait_time_recursive: Vec<BlkioEntry>,
    /// Operations merged into others (v1 with BFQ or CFQ).
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub io_merged_recursive: Vec<BlkioEntry>,
    /// Time of the device (v1 with BFQ or CFQ).
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub io_time_recursive: Vec<BlkioEntry>,
    /// Sectors moved (v1 with BFQ or CFQ).
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub sectors_recursive: Vec<BlkioEntry>,
    /// Pressure (v2).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub psi: Option<Pressure>,
}

/// Huge pages of one size, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Hugetlb {
    /// Reserved or in use now.
    #[serde(skip_serializing_if = "is_default")]
    pub usage: u64,
    /// The most that was (v1).
    #[serde(skip_serializing_if = "is_default")]
    pub max: u64,
    /// How often the limit was hit.
    pub failcnt: u64,
}

impl Cgroup {
    /// Reads what the container uses.
    ///
    /// # Errors
    /// [`Error::Read`] and [`Error::Format`].
    pub fn stats(&self) -> Result<Stats, Error> {
        let mut stats = Stats::default();
        match self.location.version {
            Version::V2 => {
                if let Some(group) = self.unified() {
                    read_v2(&Files(&group.dir), &mut stats)?;
                }
            }
            Version::V1 | Version::Hybrid => self.read_v1(&mut stats)?,
        }
        Ok(stats)
    }

    /// How often the OOM killer has killed in the container's cgroup; 0 where nothing counts it.
    ///
    /// # Errors
    /// [`Error::Read`] and [`Error::Format`].
    pub fn oom_kills(&self) -> Result<u64, Error> {
        let Some(group) = self.group("memory") else { return Ok(0) };
        let file = match self.location.version {
            Version::V2 => "memory.events",
            Version::V1 | Version::Hybrid => "memory.oom_control",
        };
        Ok(Files(&group.dir).keyed(file)?.get("oom_kill").copied().unwrap_or(0))
    }

    fn read_v1(&self, stats: &mut Stats) -> Result<(), Error> {
        let files = |controller| self.group(controller).map(|group| Files(&group.dir));
        if let Some(files) = files("cpu") {
            let stat = files.keyed("cpu.stat")?;
            let get = |key: &str| stat.get(key).copied().unwrap_or(0);
            stats.cpu.throttling = Throttling {
                periods: get("nr_periods"),
                throttled_periods: get("nr_throttled"),
                throttled_time: get("throttled_time"),
            };
        }
        if let Some(files) = files("cpuacct") {
            let usage = &mut stats.cpu.usage;
            let ticks = files.keyed("cpuacct.stat")?;
            usage.user = ticks.get("user").copied().unwrap_or(0) * NS_PER_TICK;
            usage.kernel = ticks.get("system").copied().unwrap_or(0) * NS_PER_TICK;
            usage.total = files.number("cpuacct.usage")?.unwrap_or(0);
            usage.percpu = files.numbers("cpuacct.usage_percpu")?;
            for line in files.text("cpuacct.usage_all")?.lines().skip(1) {
                let mut fields = line.split_whitespace().skip(1).map(str::parse::<u64>);
                if let (Some(Ok(user)), Some(Ok(kernel))) = (fields.next(), fields.next()) {
                    usage.percpu_user.push(user);
                    usage.percpu_kernel.push(kernel);
                }
            }
        }
        if let Some(files) = files("cpuset") {
            let flag = |name: &str| files.number(&format!("cpuset.{name}")).map(Option::unwrap_or_default);
            let level = files.text("cpuset.sched_relax_domain_level")?;
            stats.cpuset = CpuSet {
                cpus: files.ranges("cpuset.cpus")?,
                cpu_exclusive: flag("cpu_exclusive")?,
                mems: files.ranges("cpuset.mems")?,
                mem_hardwall: flag("mem_hardwall")?,
                mem_exclusive: flag("mem_exclusive")?,
                memory_migrate: flag("memory_migrate")?,
                memory_spread_page: flag("memory_spread_page")?,
                memory_spread_slab: flag("memory_spread_slab")?,
                memory_pressure: flag("memory_pressure")?,
                sched_load_balance: flag("sched_load_balance")?,
                sched_relax_domain_level: level.trim().parse().unwrap_or(0),
            };
        }
        if let Some(files) = files("memory") {
            let entry = |prefix: &str| -> Result<MemoryEntry, Error> {
                let read =
                    |name: &str| files.number(&format!("{prefix}.{name}")).map(Option::unwrap_or_default);
                Ok(MemoryEntry {
                    usage: read("usage_in_bytes")?,
                    max: read("max_usage_in_bytes")?,
                    failcnt: read("failcnt")?,
                    limit: read("limit_in_bytes")?,
                })
            };
            let raw = files.keyed("memory.stat")?;
            stats.memory = Memory {
                cache: raw.get("cache").copied().unwrap_or(0),
                usage: entry("memory")?,
                swap: entry("memory.memsw")?,
                kernel: entry("memory.kmem")?,
                kernel_tcp: entry("memory.kmem.tcp")?,
                raw,
                psi: None,
            };
        }
        if let Some(files) = files("pids") {
            stats.pids = files.pids()?;
        }
        if let Some(files) = files("blkio") {
            read_blkio(&files, &mut stats.blkio)?;
        }
        if let Some(files) = files("hugetlb") {
            for (size, prefix) in files.huge_page_sizes(".usage_in_bytes")? {
                let read =
                    |name: &str| files.number(&format!("{prefix}.{name}")).map(Option::unwrap_or_default);
                let entry = Hugetlb {
                    usage: read("usage_in_bytes")?,
                    max: read("max_usage_in_bytes")?,
                    failcnt: read("failcnt")?,
                };
                stats.hugetlb.insert(size, entry);
            }
        }
        Ok(())
    }
}

fn read_v2(files: &Files<'_>, stats: &mut Stats) -> Result<(), Error> {
    let cpu = files.keyed("cpu.stat")?;
    let get = |key: &str| cpu.get(key).copied().unwrap_or(0);
    stats.cpu = Cpu {
        usage: CpuUsage {
            total: get("usage_usec") * US,
            user: get("user_usec") * US,
            kernel: get("system_usec") * US,
            ..CpuUsage::default()
        },
        throttling: Throttling {
            periods: get("nr_periods"),
            throttled_periods: get("nr_throttled"),
            throttled_time: get("throttled_usec") * US,
        },
        psi: files.pressure("cpu.pressure")?,
    };
    let raw = files.keyed("memory.stat")?;
    if let Some(usage) = files.number("memory.current")? {
        let read = |name: &str| files.number(name).map(Option::unwrap_or_default);
        let memory = MemoryEntry { usage, max: read("memory.peak")?, limit: read("memory.max")?, failcnt: 0 };
        let mut swap = MemoryEntry::default();
        if let Some(alone) = files.number("memory.swap.current")? {
            let limit = read("memory.swap.max")?;
            // v1 counted memory and swap together, and that is what readers of these figures expect.
            swap.usage = alone + usage;
            swap.limit = if limit == u64::MAX { limit } else { limit.saturating_add(memory.limit) };
        } else {
            swap.usage = usage;
            swap.limit = memory.limit;
        }
        stats.memory =
            Memory { cache: raw.get("file").copied().unwrap_or(0), usage: memory, swap, ..Memory::default() };
    }
    stats.memory.raw = raw;
    stats.memory.psi = files.pressure("memory.pressure")?;
    stats.pids = files.pids()?;
    for line in files.text("io.stat")?.lines() {
        let mut fields = line.split_whitespace();
        let Some((major, minor)) = fields.next().and_then(|node| node.split_once(':')) else { continue };
        let (Ok(major), Ok(minor)) = (major.parse(), minor.parse()) else { continue };
        for (key, value) in fields.filter_map(|f| f.split_once('=')) {
            let (table, op) = match key {
                "rbytes" => (&mut stats.blkio.io_service_bytes_recursive, "Read"),
                "wbytes" => (&mut stats.blkio.io_service_bytes_recursive, "Write"),
                "rios" => (&mut stats.blkio.io_serviced_recursive, "Read"),
                "wios" => (&mut stats.blkio.io_serviced_recursive, "Write"),
                _ => continue,
            };
            if let Ok(value) = value.parse() {
                table.push(BlkioEntry { major, minor, op: op.to_owned(), value });
            }
        }
    }
    stats.blkio.psi = files.pressure("io.pressure")?;
    for (size, prefix) in files.huge_page_sizes(".current")? {
        let plain = prefix.trim_end_matches(".rsvd");
        let events = files.keyed(&format!("{plain}.events"))?;
        let entry = Hugetlb {
            usage: files.number(&format!("{prefix}.current"))?.unwrap_or(0),
            max: 0,
            failcnt: events.get("max").copied().unwrap_or(0),
        };
        stats.hugetlb.insert(size, entry);
    }
    Ok(())
}

/// The v1 block I/O tables, from the first family of files that the kernel has.
fn read_blkio(files: &Files<'_>, blkio: &mut Blkio) -> Result<(), Error> {
    for family in ["blkio.bfq.", "blkio.", "blkio.throttle."] {
        let read = |name: &str| files.blkio(&format!("{family}{name}"));
        let found = [
            read("io_service_bytes_recursive")?,
            read("io_serviced_recursive")?,
            read("io_queued_recursive")?,
            read("io_service_time_recursive")?,
            read("io_wait_time_recursive")?,
            read("io_merged_recursive")?,
            read("time_recursive")?,
            read("sectors_recursive")?,
        ];
        // Without the scheduler that counts, its files are there but empty.
        if found.iter().all(|table| table.as_ref().is_none_or(Vec::is_empty)) {
            continue;
        }
        let [bytes, ops, queued, service, wait, merged, time, sectors] = found.map(Option::unwrap_or_default);
        *blkio = Blkio {
            io_service_bytes_recursive: bytes,
            io_serviced_recursive: ops,
            io_queued_recursive: queued,
            io_service_time_recursive: service,
            io_wait_time_recursive: wait,
            io_merged_recursive: merged,
            io_time_recursive: time,
            sectors_recursive: sectors,
            psi: None,
        };
        return Ok(());
    }
    Ok(())
}

/// The files of one cgroup directory, by their format.
struct Files<'a>(&'a Dir);

impl Files<'_> {
    fn text(&self, name: &str) -> Result<String, Error> {
        match self.0.read(name) {
            Ok(text) => Ok(text),
            Err(e) if is_gone(&e) => Ok(String::new()),
            Err(source) => Err(Error::Read { path: self.0.path().join(name), source }),
        }
    }

    fn malformed(&self, name: &str, content: &str) -> Error {
        Error::Format { path: self.0.path().join(name), content: content.to_owned() }
    }

    /// A file of one number; `max` is the largest one.
    fn number(&self, name: &str) -> Result<Option<u64>, Error> {
        let text = self.text(name)?;
        match text.trim() {
            "" => Ok(None),
            "max" => Ok(Some(u64::MAX)),
            n => match n.parse() {
                Ok(n) => Ok(Some(n)),
                // -1 stands for "no limit" in some v1 files.
                Err(_) if n.starts_with('-') => Ok(Some(0)),
                Err(_) => Err(self.malformed(name, n)),
            },
        }
    }

    fn numbers(&self, name: &str) -> Result<Vec<u64>, Error> {
        let text = self.text(name)?;
        text.split_whitespace().map(|n| n.parse().map_err(|_| self.malformed(name, n))).collect()
    }

    /// A file of lines `key value`.
    fn keyed(&self, name: &str) -> Result<BTreeMap<String, u64>, Error> {
        let mut map = BTreeMap::new();
        for line in self.text(name)?.lines() {
            let (key, value) = line.split_once(' ').ok_or_else(|| self.malformed(name, line))?;
            map.insert(key.to_owned(), value.trim().parse().map_err(|_| self.malformed(name, line))?);
        }
        Ok(map)
    }

    /// A file such as `0-3,7`.
    fn ranges(&self, name: &str) -> Result<Vec<u16>, Error> {
        let text = self.text(name)?;
        let mut list = Vec::new();
        for part in text.trim().split(',').filter(|p| !p.is_empty()) {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            match (first.parse::<u16>(), last.parse::<u16>()) {
                (Ok(first), Ok(last)) => list.extend(first..=last),
                _ => return Err(self.malformed(name, &text)),
            }
        }
        Ok(list)
    }

    fn pids(&self) -> Result<Pids, Error> {
        match self.number("pids.current")? {
            Some(current) => {
                let limit = self.number("pids.max")?.filter(|&n| n != u64::MAX).unwrap_or(0);
                Ok(Pids { current, limit })
            }
            // Without the controller the processes can still be counted.
            None => Ok(Pids { current: self.text("cgroup.procs")?.lines().count() as u64, limit: 0 }),
        }
    }

    fn pressure(&self, name: &str) -> Result<Option<Pressure>, Error> {
        let text = match self.0.read(name) {
            Ok(text) => text,
            // The kernel has it, but it is switched off.
            Err(e) if is_gone(&e) || e.raw_os_error() == Some(libc::EOPNOTSUPP) => return Ok(None),
            Err(source) => return Err(Error::Read { path: self.0.path().join(name), source }),
        };
        let mut pressure = Pressure::default();
        for line in text.lines() {
            let mut fields = line.split_whitespace();
            let target = match fields.next() {
                Some("some") => &mut pressure.some,
                Some("full") => &mut pressure.full,
                _ => continue,
            };
            for (key, value) in fields.filter_map(|f| f.split_once('=')) {
                let number = value.parse::<f64>().map_err(|_| self.malformed(name, line))?;
                match key {
                    "avg10" => target.avg10 = number,
                    "avg60" => target.avg60 = number,
                    "avg300" => target.avg300 = number,
                    "total" => target.total = value.parse().map_err(|_| self.malformed(name, line))?,
                    _ => {}
                }
            }
        }
        Ok(Some(pressure))
    }

    /// A v1 table of `major:minor [op] value`; `None` if there is no such file.
    fn blkio(&self, name: &str) -> Result<Option<Vec<BlkioEntry>>, Error> {
        let text = match self.0.read(name) {
            Ok(text) => text,
            Err(e) if is_gone(&e) => return Ok(None),
            Err(source) => return Err(Error::Read { path: self.0.path().join(name), source }),
        };
        let mut table = Vec::new();
        for line in text.lines() {
            let fields: Vec<&str> = line.split([' ', ':']).collect();
            let (op, value) = match fields[..] {
                // The sum over all devices.
                ["Total", _] => continue,
                [_, _, value] => ("", value),
                [_, _, op, value] => (op, value),
                _ => return Err(self.malformed(name, line)),
            };
            let number = |n: &str| n.parse::<u64>().map_err(|_| self.malformed(name, line));
            table.push(BlkioEntry {
                major: number(fields[0])?,
                minor: number(fields[1])?,
                op: op.to_owned(),
                value: number(value)?,
            });
        }
        Ok(Some(table))
    }

    /// The sizes of huge pages that have a file `hugetlb.<size>[.rsvd]<suffix>` here, each with the prefix of its files:
    /// that of reservations where they are counted.
    fn huge_page_sizes(&self, suffix: &str) -> Result<Vec<(String, String)>, Error> {
        let Ok(entries) = std::fs::read_dir("/sys/kernel/mm/hugepages") else { return Ok(Vec::new()) };
        let mut sizes = Vec::new();
        for entry in entries.flatten() {
            let name = entry.file_name();
            let kib = name.to_str().and_then(|n| n.strip_prefix("hugepages-")?.strip_suffix("kB"));
            let Some(kib) = kib.and_then(|n| n.parse::<u64>().ok()) else { continue };
            let size = match kib {
                n if n >= 1 << 20 => format!("{}GB", n >> 20),
                n if n >= 1 << 10 => format!("{}MB", n >> 10),
                n => format!("{n}KB"),
            };
            for prefix in [format!("hugetlb.{size}.rsvd"), format!("hugetlb.{size}")] {
                if self.number(&format!("{prefix}{suffix}"))?.is_some() {
                    sizes.push((size, prefix));
                    break;
                }
            }
        }
        Ok(sizes)
    }
}

#[cfg(test)]
mod tests {
    use super::super::fake::Tree;
    use super::*;

    #[test]
    fn v2_figures_are_translated_to_the_units_and_sums_of_v1() {
        let tree = Tree::new();
        let dir = tree.dir(
            "c",
            &[
                ("cpu.stat", "usage_usec 30\nuser_usec 20\nsystem_usec 10\nnr_periods 3\nnr_throttled 1\nthrottled_usec 7\n"),
                ("cpu.pressure", "some avg10=1.50 avg60=0.00 avg300=0.00 total=99\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=0\n"),
                ("memory.stat", "anon 1\nfile 2\n"),
                ("memory.current", "1000\n"),
                ("memory.max", "5000\n"),
                ("memory.swap.current", "10\n"),
                ("memory.swap.max", "500\n"),
                ("pids.current", "4\n"),
                ("pids.max", "max\n"),
                ("io.stat", "8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=0 dios=0\n"),
            ],
        );
        let mut stats = Stats::default();
        read_v2(&Files(&dir), &mut stats).unwrap();
        assert_eq!(
            (stats.cpu.usage.total, stats.cpu.usage.user, stats.cpu.throttling.throttled_time),
            (30_000, 20_000, 7_000)
        );
        assert_eq!(stats.cpu.psi.unwrap().some.total, 99);
        assert_eq!((stats.memory.usage.limit, stats.memory.cache), (5000, 2));
        assert_eq!((stats.memory.swap.usage, stats.memory.swap.limit), (1010, 5500));
        assert_eq!(stats.pids, Pids { current: 4, limit: 0 });
        let json = serde_json::to_value(&stats).unwrap();
        assert_eq!(json["blkio"]["ioServicedRecursive"][1]["value"], 4);
        assert_eq!(json["pids"], serde_json::json!({"current": 4}));
        assert_eq!(json["network_interfaces"], serde_json::Value::Null);
        assert_eq!(json["intel_rdt"], serde_json::json!({}));
        assert_eq!(json["cpu"]["psi"]["some"]["avg10"], 1.5);
    }

    #[test]
    fn without_the_pids_controller_processes_are_counted() {
        let tree = Tree::new();
        let dir = tree.dir("c", &[("cgroup.procs", "1\n22\n")]);
        assert_eq!(Files(&dir).pids().unwrap().current, 2);
    }

    #[test]
    fn a_malformed_file_is_named() {
        let tree = Tree::new();
        let dir = tree.dir("c", &[("memory.stat", "nonsense\n")]);
        let error = Files(&dir).keyed("memory.stat").unwrap_err();
        assert!(error.to_string().contains("memory.stat"), "{error}");
    }

    #[test]
    fn v1_block_tables_come_from_the_family_that_counts() {
        let tree = Tree::new();
        let dir = tree.dir(
            "c",
            &[
                ("blkio.bfq.io_service_bytes_recursive", "Total 0\n"),
                ("blkio.throttle.io_service_bytes_recursive", "8:0 Read 5\n8:0 Total 5\nTotal 5\n"),
            ],
        );
        let mut blkio = Blkio::default();
        let result = read_blkio(&Files(&dir), &mut blkio);
        result.unwrap();
        assert_eq!(blkio.io_service_bytes_recursive[0].op, "Read");
        assert_eq!(blkio.io_service_bytes_recursive[0].value, 5);
    }
}
