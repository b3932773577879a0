//! `linux.resources` as a list of writes to cgroup files: compiled without looking at anything but the configuration.
//!
//! Each write carries the JSON pointer of the field it comes from, so that an error of the kernel names that field. Orders
//! that depend on the values that are in force (memory against memory+swap, quota against period) are not worked out by
//! reading: a write that the kernel refuses as inconsistent is tried once more after the others.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io;

use oci_spec::runtime::{LinuxBlockIo, LinuxCpu, LinuxMemory, LinuxResources, LinuxThrottleDevice};
use rustix::fs::OFlags;

use crate::error::Mistake;

use super::devices::Policy;
use super::file::{Dir, write_all_at_once};
use super::{Cgroup, Error, Location, Version};

/// What to do when a file is not there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Missing {
    /// The limit cannot be had: an error.
    Fail,
    /// Nothing is lost without it.
    Skip,
    /// Another kernel configuration has another file.
    Else(&'static str, String),
}

/// One write to a file of the container's cgroup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Write {
    pub(super) controller: Cow<'static, str>,
    pub(super) file: Cow<'static, str>,
    pub(super) value: String,
    pub(super) pointer: String,
    pub(super) missing: Missing,
    /// Try again after the other writes if the kernel finds it inconsistent with the values in force.
    pub(super) retry: bool,
    /// Has to be written before a process is in the cgroup.
    pub(super) early: bool,
}

/// The resource limits of a container, ready to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    pub(super) version: Version,
    pub(super) writes: Vec<Write>,
    pub(super) devices: Option<Policy>,
    ignored: Vec<Mistake>,
    /// `memory.checkBeforeUpdate`, with the limits to check.
    check_memory: Vec<(String, u64)>,
}

impl Limits {
    /// Compiles `/linux/resources` for a new container. Access to devices is always restricted: without a `devices` list
    /// to the default devices.
    ///
    /// See [resources](https://github.com/opencontainers/runtime-spec/blob/v1.3.0/config-linux.md#control-groups).
    ///
    /// # Errors
    /// Every mistake found, with its JSON pointer.
    pub fn compile(resources: Option<&LinuxResources>, version: Version) -> Result<Limits, Vec<Mistake>> {
        let rules = resources.and_then(|r| r.devices().as_deref()).unwrap_or_default();
        Limits::build(resources, version, Some(Policy::compile(rules, version)))
    }

    /// Compiles the resources of an `update`: as [`Limits::compile`], but device access is left as it is unless there is
    /// a `devices` list.
    ///
    /// # Errors
    /// Every mistake found, with its JSON pointer.
    pub fn compile_update(resources: &LinuxResources, version: Version) -> Result<Limits, Vec<Mistake>> {
        let devices = resources.devices().as_deref().map(|rules| Policy::compile(rules, version));
        Limits::build(Some(resources), version, devices)
    }

    fn build(
        resources: Option<&LinuxResources>,
        version: Version,
        devices: Option<Result<Policy, Vec<Mistake>>>,
    ) -> Result<Limits, Vec<Mistake>> {
        let mut compiler = Compiler { v2: version == Version::V2, ..Compiler::default() };
        let devices = match devices {
            Some(Ok(policy)) => Some(policy),
            Some(Err(mistakes)) => {
                compiler.mistakes.extend(mistakes);
                None
            }
            None => None,
        };
        if let Some(resources) = resources {
            compiler.resources(resources);
        }
        if !compiler.mistakes.is_empty() {
            return Err(compiler.mistakes);
        }
        Ok(Limits {
            version,
            writes: compiler.writes,
            devices,
            ignored: compiler.ignored,
            check_memory: compiler.check_memory,
        })
    }

    /// Fields that are given but have no effect, each with the reason: for a warning.
    pub fn ignored(&self) -> &[Mistake] {
        &self.ignored
    }

    /// Limits that cannot be had at `location` because this host mounts no hierarchy with their controller (v1 and
    /// hybrid; on v2 only the attempt shows it). Empty for a rootless container that may go without a cgroup: what it
    /// lacks is known when its cgroup has been made.
    pub fn unavailable(&self, location: &Location) -> Vec<Mistake> {
        if location.version == Version::V2 || location.rootless {
            return Vec::new();
        }
        let lacking = |w: &&Write| {
            w.missing != Missing::Skip && !location.places.iter().any(|place| place.has(&w.controller))
        };
        let mistake = |w: &Write| {
            Mistake::new(w.pointer.clone(), format!("this host mounts no {} cgroup", w.controller))
        };
        self.writes.iter().filter(lacking).map(mistake).collect()
    }

    /// Whether `controller`'s `file` is among the writes.
    pub(super) fn sets(&self, controller: &str, file: &str) -> bool {
        self.writes.iter().any(|w| w.controller == controller && w.file == file)
    }

    /// Whether a limit needs a controller that a threaded cgroup of v2 has not.
    pub(super) fn needs_domain(&self) -> bool {
        self.writes.iter().any(|w| matches!(&*w.controller, "memory" | "io" | "cpu" | "hugetlb"))
    }
}

impl Cgroup {
    /// Writes the limits and sets the device filter. Can run at any time after [`Cgroup::create`]; with the systemd driver
    /// after [`Cgroup::attach`].
    ///
    /// # Errors
    /// [`Error::Limit`] or [`Error::NoController`] with the field's JSON pointer, and [`Error::DeviceFilter`]. A rootless
    /// container is not refused for the device filter alone.
    pub fn apply(&self, limits: &Limits) -> Result<(), Error> {
        self.write_all(limits, |w| !w.early)?;
        match &limits.devices {
            Some(policy) if !self.restricted => self.restrict_devices(policy),
            _ => Ok(()),
        }
    }

    /// Changes the limits of a running container. Only what `limits` names changes.
    ///
    /// # Errors
    /// As [`Cgroup::apply`], and [`Error::MemoryInUse`] where `checkBeforeUpdate` is set and the container uses more.
    pub fn update(&self, limits: &Limits) -> Result<(), Error> {
        self.check_memory(limits)?;
        self.update_unit(limits)?;
        self.write_all(limits, |_| true)?;
        match &limits.devices {
            Some(policy) => self.restrict_devices(policy),
            None => Ok(()),
        }
    }

    pub(super) fn apply_early(&self, limits: &Limits) -> Result<(), Error> {
        self.write_all(limits, |w| w.early)
    }

    fn check_memory(&self, limits: &Limits) -> Result<(), Error> {
        let file = match limits.version {
            Version::V2 => "memory.current",
            Version::V1 | Version::Hybrid => "memory.usage_in_bytes",
        };
        let Some(group) = self.group("memory").filter(|_| !limits.check_memory.is_empty()) else {
            return Ok(());
        };
        // Without a figure there is nothing to compare with; the limit itself will say what is wrong.
        let Some(usage) = group.dir.read_line(file).ok().and_then(|t| t.trim().parse::<u64>().ok()) else {
            return Ok(());
        };
        match limits.check_memory.iter().find(|(_, limit)| *limit <= usage) {
            Some((pointer, limit)) => {
                Err(Error::MemoryInUse { pointer: pointer.clone(), limit_bytes: *limit, usage_bytes: usage })
            }
            None => Ok(()),
        }
    }

    fn write_all(&self, limits: &Limits, wanted: impl Fn(&Write) -> bool) -> Result<(), Error> {
        let mut again: Vec<&Write> = Vec::new();
        for write in limits.writes.iter().filter(|w| wanted(w)) {
            match self.write_one(write) {
                Err(Error::Limit { source, .. }) if write.retry && is_inconsistent(&source) => {
                    again.push(write);
                }
                other => other?,
            }
        }
        again.into_iter().try_for_each(|write| self.write_one(write))
    }

    fn write_one(&self, write: &Write) -> Result<(), Error> {
        let Some(group) = self.group(&write.controller) else {
            return match write.missing {
                Missing::Skip => Ok(()),
                _ => Err(Error::NoController {
                    pointer: write.pointer.clone(),
                    controller: write.controller.clone().into_owned(),
                }),
            };
        };
        let fail = |file: &str, value: &str, source: io::Error| {
            Err(self.explain(write, &group.dir, file, value, source))
        };
        match write_lines(&group.dir, &write.file, &write.value) {
            Err(e) if e.raw_os_error() == Some(libc::ENOENT) => match &write.missing {
                Missing::Skip => Ok(()),
                Missing::Fail => fail(&write.file, &write.value, e),
                Missing::Else(file, value) => match write_lines(&group.dir, file, value) {
                    Err(e) => fail(file, value, e),
                    Ok(()) => Ok(()),
                },
            },
            Err(e) => fail(&write.file, &write.value, e),
            Ok(()) => Ok(()),
        }
    }

    /// Makes the error that helps most out of a write that failed.
    fn explain(&self, write: &Write, dir: &Dir, file: &str, value: &str, source: io::Error) -> Error {
        let pointer = write.pointer.clone();
        match source.raw_os_error() {
            // Opening a file of a cgroup that exists fails like this when its controller is not enabled.
            Some(libc::ENOENT | libc::EACCES | libc::EPERM)
                if self.location.version == Version::V2 && write.controller != "cgroup" =>
            {
                let enabled = dir.read_line("cgroup.controllers").unwrap_or_default();
                if !enabled.split_whitespace().any(|c| c == write.controller) {
                    return Error::NoController {
                        pointer,
                        controller: write.controller.clone().into_owned(),
                    };
                }
            }
            Some(libc::EBUSY) if file == "memory.limit_in_bytes" => {
                let usage = dir.read_line("memory.usage_in_bytes").ok().and_then(|t| t.trim().parse().ok());
                if let (Some(usage_bytes), Ok(limit_bytes)) = (usage, value.parse()) {
                    return Error::MemoryInUse { pointer, limit_bytes, usage_bytes };
                }
            }
            _ => {}
        }
        Error::Limit { pointer, value: value.to_owned(), path: dir.path().join(file), source }
    }
}

/// The values in force and the new one do not go together: the kernel says EINVAL, or EBUSY for memory+swap.
fn is_inconsistent(e: &io::Error) -> bool {
    matches!(e.raw_os_error(), Some(libc::EINVAL | libc::EBUSY))
}

/// Writes `value` line by line: files that take a table accept one row in a write.
fn write_lines(dir: &Dir, file: &str, value: &str) -> io::Result<()> {
    let fd = dir.open_file(file, OFlags::WRONLY)?;
    if !value.contains('\n') {
        return write_all_at_once(&fd, value);
    }
    value.split('\n').filter(|l| !l.is_empty()).try_for_each(|line| write_all_at_once(&fd, line))
}

const AT: &str = "/linux/resources";

#[derive(Default)]
struct Compiler {
    v2: bool,
    writes: Vec<Write>,
    mistakes: Vec<Mistake>,
    ignored: Vec<Mistake>,
    check_memory: Vec<(String, u64)>,
}

impl Compiler {
    fn write(
        &mut self,
        controller: &'static str,
        file: impl Into<Cow<'static, str>>,
        value: impl ToString,
        pointer: &str,
    ) -> &mut Write {
        self.writes.push(Write {
            controller: controller.into(),
            file: file.into(),
            value: value.to_string(),
            pointer: format!("{AT}{pointer}"),
            missing: Missing::Fail,
            retry: false,
            early: false,
        });
        let last = self.writes.len() - 1;
        &mut self.writes[last]
    }

    fn mistake(&mut self, pointer: &str, message: impl Into<String>) {
        self.mistakes.push(Mistake::new(format!("{AT}{pointer}"), message));
    }

    fn ignore(&mut self, pointer: &str, message: &str) {
        self.ignored.push(Mistake::new(format!("{AT}{pointer}"), message));
    }

    fn resources(&mut self, r: &LinuxResources) {
        // cpuset comes first: on v1 it has to be there before a process is.
        if let Some(cpu) = r.cpu() {
            self.cpuset(cpu);
            self.realtime(cpu);
        }
        if let Some(memory) = r.memory() {
            self.memory(memory);
        }
        if let Some(cpu) = r.cpu() {
            self.cpu(cpu);
        }
        if let Some(pids) = r.pids() {
            // 0 is 1 as in runc, since systemd has no 0 and a process that cannot fork needs no more than itself.
            let value = match pids.limit() {
                n if n < 0 => "max".to_owned(),
                0 => "1".to_owned(),
                n => n.to_string(),
            };
            self.write("pids", "pids.max", value, "/pids/limit");
        }
        if let Some(io) = r.block_io() {
            self.block_io(io);
        }
        self.hugepages(r);
        self.network(r);
        for (device, limit) in sorted(r.rdma()) {
            let mut value = device.clone();
            if let Some(n) = limit.hca_handles() {
                value.push_str(&format!(" hca_handle={n}"));
            }
            if let Some(n) = limit.hca_objects() {
                value.push_str(&format!(" hca_object={n}"));
            }
            let pointer = format!("/rdma/{}", escape(device));
            if value.len() == device.len() {
                self.mistake(&pointer, "needs hcaHandles or hcaObjects");
            } else if device.is_empty() || device.contains(char::is_whitespace) {
                self.mistake(&pointer, "is not the name of an RDMA device");
            } else {
                self.write("rdma", "rdma.max", value, &pointer);
            }
        }
        self.unified(r);
    }

    fn cpuset(&mut self, cpu: &LinuxCpu) {
        let early = !self.v2;
        for (value, file, pointer) in
            [(cpu.cpus(), "cpuset.cpus", "/cpu/cpus"), (cpu.mems(), "cpuset.mems", "/cpu/mems")]
        {
            let Some(list) = value.as_deref().filter(|v| !v.is_empty()) else { continue };
            if !is_list_of_ranges(list) {
                self.mistake(pointer, format!("{list:?} is not a list of numbers and ranges such as 0-3,7"));
                continue;
            }
            self.write("cpuset", file, list, pointer).early = early;
        }
    }

    fn realtime(&mut self, cpu: &LinuxCpu) {
        let runtime = cpu.realtime_runtime().filter(|&n| n != 0);
        let period = cpu.realtime_period().filter(|&n| n != 0);
        if self.v2 {
            if runtime.is_some() || period.is_some() {
                self.ignore("/cpu", "cgroup v2 has no realtime limits");
            }
            return;
        }
        if let Some(period) = period {
            let write = self.write("cpu", "cpu.rt_period_us", period, "/cpu/realtimePeriod");
            (write.early, write.retry) = (true, runtime.is_some());
        }
        if let Some(runtime) = runtime {
            self.write("cpu", "cpu.rt_runtime_us", runtime, "/cpu/realtimeRuntime").early = true;
        }
    }

    fn memory(&mut self, memory: &LinuxMemory) {
        // 0 is "not set" to every runtime, whatever the specification's types allow.
        let set = |value: Option<i64>| value.filter(|&n| n != 0);
        let (limit, swap) = (set(memory.limit()), set(memory.swap()));
        let reservation = set(memory.reservation());
        for (value, pointer) in
            [(limit, "/memory/limit"), (swap, "/memory/swap"), (reservation, "/memory/reservation")]
        {
            if value.is_some_and(|n| n < -1) {
                self.mistake(pointer, "is less than -1, which stands for unlimited");
            }
        }
        if let (Some(limit), Some(swap)) = (limit, swap) {
            if limit > 0 && swap > 0 && swap < limit {
                self.mistake(
                    "/memory/swap",
                    format!("memory and swap together ({swap}) is less than memory alone ({limit})"),
                );
            }
        }
        if memory.check_before_update() == Some(true) {
            for (value, pointer) in [(swap, "/memory/swap"), (limit, "/memory/limit")] {
                if let Some(bytes) = value.and_then(|n| u64::try_from(n).ok()) {
                    self.check_memory.push((format!("{AT}{pointer}"), bytes));
                }
            }
        }
        #[allow(deprecated, reason = "the field is still part of the specification")]
        if memory.kernel().is_some() || memory.kernel_tcp().is_some() {
            self.ignore("/memory/kernel", "limits on kernel memory are ignored");
        }
        if memory.use_hierarchy() == Some(false) {
            self.ignore("/memory/useHierarchy", "memory accounting is always hierarchical");
        }
        match self.v2 {
            true => self.memory_v2(limit, swap, reservation),
            false => self.memory_v1(limit, swap, reservation),
        }
        if let Some(swappiness) = memory.swappiness() {
            // -1 as an unsigned number is what some callers send for "not set".
            if swappiness > 100 && swappiness != u64::MAX {
                self.mistake("/memory/swappiness", format!("{swappiness} is not between 0 and 100"));
            } else if self.v2 {
                self.ignore("/memory/swappiness", "cgroup v2 has no swappiness");
            } else if swappiness != u64::MAX {
                self.write("memory", "memory.swappiness", swappiness, "/memory/swappiness");
            }
        }
        if memory.disable_oom_killer() == Some(true) {
            match self.v2 {
                true => self.ignore("/memory/disableOOMKiller", "cgroup v2 cannot disable the OOM killer"),
                false => {
                    self.write("memory", "memory.oom_control", 1, "/memory/disableOOMKiller");
                }
            }
        }
    }

    fn memory_v1(&mut self, limit: Option<i64>, swap: Option<i64>, reservation: Option<i64>) {
        const SWAP: &str = "memory.memsw.limit_in_bytes";
        if let (Some(-1), None) = (limit, swap) {
            // Unlimited memory under an old memory+swap limit would not be unlimited.
            self.write("memory", SWAP, -1, "/memory/limit").missing = Missing::Skip;
        }
        if let Some(limit) = limit {
            self.write("memory", "memory.limit_in_bytes", limit, "/memory/limit").retry = swap.is_some();
        }
        if let Some(swap) = swap {
            self.write("memory", SWAP, swap, "/memory/swap");
        }
        if let Some(reservation) = reservation {
            self.write("memory", "memory.soft_limit_in_bytes", reservation, "/memory/reservation");
        }
    }

    fn memory_v2(&mut self, limit: Option<i64>, swap: Option<i64>, reservation: Option<i64>) {
        let text = |n: i64| if n < 0 { "max".to_owned() } else { n.to_string() };
        // The specification counts memory and swap together, cgroup v2 swap alone.
        let alone = match (limit, swap) {
            (Some(-1), None) => Some(-1),
            (_, None) => None,
            (_, Some(-1)) => Some(-1),
            (Some(-1), Some(swap)) => Some(swap),
            (None, Some(_)) => {
                self.mistake("/memory/swap", "cannot be had without a memory limit on cgroup v2");
                None
            }
            (Some(limit), Some(swap)) => Some((swap - limit).max(0)),
        };
        if let Some(alone) = alone {
            let pointer = if swap.is_some() { "/memory/swap" } else { "/memory/limit" };
            let write = self.write("memory", "memory.swap.max", text(alone), pointer);
            if alone <= 0 {
                // A kernel without swap accounting has nothing to limit.
                write.missing = Missing::Skip;
            }
        }
        if let Some(limit) = limit {
            self.write("memory", "memory.max", text(limit), "/memory/limit");
        }
        if let Some(reservation) = reservation {
            self.write("memory", "memory.low", text(reservation), "/memory/reservation");
        }
    }

    fn cpu(&mut self, cpu: &LinuxCpu) {
        let shares = cpu.shares().filter(|&n| n != 0);
        let quota = cpu.quota().filter(|&n| n != 0);
        let period = cpu.period().filter(|&n| n != 0);
        if let Some(period) = period.filter(|p| !(1_000..=1_000_000).contains(p)) {
            self.mistake("/cpu/period", format!("{period} is not between 1000 and 1000000 microseconds"));
        }
        if let Some(quota) = quota.filter(|&q| q > 0 && q < 1_000) {
            self.mistake("/cpu/quota", format!("{quota} is less than 1000 microseconds"));
        }
        if let (Some(burst), Some(quota)) = (cpu.burst(), quota.and_then(|q| u64::try_from(q).ok())) {
            if burst > quota {
                self.mistake("/cpu/burst", format!("{burst} is more than the quota, {quota}"));
            }
        }
        if let Some(idle) = cpu.idle().filter(|i| !(0..=1).contains(i)) {
            self.mistake("/cpu/idle", format!("{idle} is not 0 or 1"));
        }
        if let Some(shares) = shares {
            match self.v2 {
                // A cgroup that is idle refuses a weight: one that stops being idle takes it afterwards.
                true => {
                    let weight = weight_from_shares(shares);
                    self.write("cpu", "cpu.weight", weight, "/cpu/shares").retry = cpu.idle().is_some();
                }
                false if !(2..=262_144).contains(&shares) => {
                    self.mistake("/cpu/shares", format!("{shares} is not between 2 and 262144"));
                }
                false => {
                    self.write("cpu", "cpu.shares", shares, "/cpu/shares").retry = cpu.idle().is_some();
                }
            }
        }
        if let Some(idle) = cpu.idle() {
            self.write("cpu", "cpu.idle", idle, "/cpu/idle");
        }
        if self.v2 {
            if let Some(burst) = cpu.burst() {
                self.write("cpu", "cpu.max.burst", burst, "/cpu/burst").retry = quota.is_some();
            }
            if quota.is_some() || period.is_some() {
                let quota = quota.filter(|&q| q > 0).map_or("max".to_owned(), |q| q.to_string());
                let value = format!("{quota} {}", period.unwrap_or(100_000));
                let pointer = if cpu.quota().is_some() { "/cpu/quota" } else { "/cpu/period" };
                self.write("cpu", "cpu.max", value, pointer);
            }
            return;
        }
        if let Some(period) = period {
            self.write("cpu", "cpu.cfs_period_us", period, "/cpu/period").retry = quota.is_some();
        }
        if let Some(burst) = cpu.burst() {
            let write = self.write("cpu", "cpu.cfs_burst_us", burst, "/cpu/burst");
            (write.retry, write.missing) = (quota.is_some(), Missing::Skip);
        }
        if let Some(quota) = quota {
            self.write("cpu", "cpu.cfs_quota_us", quota, "/cpu/quota");
        }
    }

    fn block_io(&mut self, io: &LinuxBlockIo) {
        let checked = |this: &mut Compiler, weight: Option<u16>, pointer: &str| -> Option<u16> {
            let weight = weight.filter(|&w| w != 0)?;
            if (10..=1000).contains(&weight) {
                return Some(weight);
            }
            this.mistake(pointer, format!("{weight} is not between 10 and 1000"));
            None
        };
        if let Some(weight) = checked(self, io.weight(), "/blockIO/weight") {
            match self.v2 {
                true => {
                    let converted = io_weight(weight).to_string();
                    self.write("io", "io.bfq.weight", weight, "/blockIO/weight").missing =
                        Missing::Else("io.weight", converted);
                }
                false => {
                    self.write("blkio", "blkio.weight", weight, "/blockIO/weight").missing =
                        Missing::Else("blkio.bfq.weight", weight.to_string());
                }
            }
        }
        if let Some(weight) = checked(self, io.leaf_weight(), "/blockIO/leafWeight") {
            match self.v2 {
                true => self.ignore("/blockIO/leafWeight", "cgroup v2 has no leaf weight"),
                false => {
                    self.write("blkio", "blkio.leaf_weight", weight, "/blockIO/leafWeight");
                }
            }
        }
        for (i, device) in io.weight_device().iter().flatten().enumerate() {
            let node = format!("{}:{}", device.major(), device.minor());
            let pointer = format!("/blockIO/weightDevice/{i}");
            if device.weight().is_none() && device.leaf_weight().is_none() {
                self.mistake(&pointer, "needs weight or leafWeight");
            }
            if let Some(weight) = checked(self, device.weight(), &format!("{pointer}/weight")) {
                let value = format!("{node} {weight}");
                match self.v2 {
                    true => {
                        let converted = format!("{node} {}", io_weight(weight));
                        self.write("io", "io.bfq.weight", value, &pointer).missing =
                            Missing::Else("io.weight", converted);
                    }
                    false => {
                        let same = Missing::Else("blkio.bfq.weight_device", value.clone());
                        self.write("blkio", "blkio.weight_device", value, &pointer).missing = same;
                    }
                }
            }
            if let Some(weight) = checked(self, device.leaf_weight(), &format!("{pointer}/leafWeight")) {
                match self.v2 {
                    true => self.ignore(&format!("{pointer}/leafWeight"), "cgroup v2 has no leaf weight"),
                    false => {
                        let value = format!("{node} {weight}");
                        self.write("blkio", "blkio.leaf_weight_device", value, &pointer);
                    }
                }
            }
        }
        type Table<'a> = (&'a Option<Vec<LinuxThrottleDevice>>, &'static str, &'static str, &'static str);
        let tables: [Table<'_>; 4] = [
            (
                io.throttle_read_bps_device(),
                "throttleReadBpsDevice",
                "rbps",
                "blkio.throttle.read_bps_device",
            ),
            (
                io.throttle_write_bps_device(),
                "throttleWriteBpsDevice",
                "wbps",
                "blkio.throttle.write_bps_device",
            ),
            (
                io.throttle_read_iops_device(),
                "throttleReadIOPSDevice",
                "riops",
                "blkio.throttle.read_iops_device",
            ),
            (
                io.throttle_write_iops_device(),
                "throttleWriteIOPSDevice",
                "wiops",
                "blkio.throttle.write_iops_device",
            ),
        ];
        for (table, field, key, file) in tables {
            for (i, device) in table.iter().flatten().enumerate() {
                let node = format!("{}:{}", device.major(), device.minor());
                let pointer = format!("/blockIO/{field}/{i}");
                match self.v2 {
                    true => {
                        // 0 takes the limit away, which v2 spells out.
                        let rate = match device.rate() {
                            0 => "max".to_owned(),
                            n => n.to_string(),
                        };
                        self.write("io", "io.max", format!("{node} {key}={rate}"), &pointer);
                    }
                    false => {
                        self.write("blkio", file, format!("{node} {}", device.rate()), &pointer);
                    }
                }
            }
        }
    }

    fn hugepages(&mut self, r: &LinuxResources) {
        for (i, limit) in r.hugepage_limits().iter().flatten().enumerate() {
            let size = limit.page_size();
            if !is_page_size(size) {
                let message = format!("{size:?} is not a page size such as 64KB, 2MB or 1GB");
                self.mistake(&format!("/hugepageLimits/{i}/pageSize"), message);
                continue;
            }
            let suffix = if self.v2 { "max" } else { "limit_in_bytes" };
            // The type of the field cannot hold the upper half of the specification's uint64, which is "no limit".
            let value = if limit.limit() < 0 {
                (limit.limit() as u64).to_string()
            } else {
                limit.limit().to_string()
            };
            let pointer = format!("/hugepageLimits/{i}/limit");
            self.write("hugetlb", format!("hugetlb.{size}.{suffix}"), value.clone(), &pointer);
            // Reservations are limited as well where the kernel counts them.
            self.write("hugetlb", format!("hugetlb.{size}.rsvd.{suffix}"), value, &pointer).missing =
                Missing::Skip;
        }
    }

    fn network(&mut self, r: &LinuxResources) {
        let Some(network) = r.network() else { return };
        let class = network.class_id().filter(|&c| c != 0);
        let priorities = network.priorities().as_deref().unwrap_or_default();
        if self.v2 {
            if class.is_some() || !priorities.is_empty() {
                self.ignore("/network", "cgroup v2 has no network controllers");
            }
            return;
        }
        if let Some(class) = class {
            self.write("net_cls", "net_cls.classid", class, "/network/classID");
        }
        for (i, entry) in priorities.iter().enumerate() {
            let pointer = format!("/network/priorities/{i}");
            if entry.name().is_empty() || entry.name().contains(char::is_whitespace) {
                self.mistake(&format!("{pointer}/name"), "is not the name of a network interface");
                continue;
            }
            let value = format!("{} {}", entry.name(), entry.priority());
            self.write("net_prio", "net_prio.ifpriomap", value, &pointer);
        }
    }

    fn unified(&mut self, r: &LinuxResources) {
        for (file, value) in sorted(r.unified()) {
            let pointer = format!("/unified/{}", escape(file));
            if !self.v2 {
                self.mistake(&pointer, "needs cgroup v2, which this host does not have for containers");
                continue;
            }
            match file.split_once('.') {
                Some((controller, rest))
                    if !controller.is_empty() && !rest.is_empty() && !file.contains(['/', '\0']) =>
                {
                    // An attempt to move processes or to enable controllers is not a resource.
                    if matches!(file.as_str(), "cgroup.procs" | "cgroup.threads" | "cgroup.kill") {
                        self.mistake(&pointer, "is not a resource");
                        continue;
                    }
                    let write = self.write("memory", file.clone(), value, &pointer);
                    write.controller = Cow::Owned(controller.to_owned());
                }
                _ => self.mistake(&pointer, "is not of the form controller.parameter"),
            }
        }
    }
}

/// The entries of a map in a fixed order.
fn sorted<V>(map: &Option<std::collections::HashMap<String, V>>) -> BTreeMap<&String, &V> {
    map.iter().flatten().collect()
}

/// Escapes one token of a JSON pointer (RFC 6901).
fn escape(token: &str) -> String {
    token.replace('~', "~0").replace('/', "~1")
}

/// `cpu.shares` (2 to 262144, default 1024) as `cpu.weight` (1 to 10000, default 100): the curve through these three
/// points on which runc 1.4 and crun 1.24 agree.
fn weight_from_shares(shares: u64) -> u64 {
    match shares {
        0..=2 => 1,
        262_144.. => 10_000,
        _ => {
            let l = (shares as f64).log2();
            let exponent = (l * l + 125.0 * l) / 612.0 - 7.0 / 34.0;
            10_f64.powf(exponent).ceil() as u64
        }
    }
}

/// A blkio weight (10 to 1000) as an io weight (1 to 10000), linearly.
fn io_weight(weight: u16) -> u64 {
    1 + (u64::from(weight) - 10) * 9999 / 990
}

/// Whether `list` is of the kernel's list format: numbers and ranges separated by commas.
fn is_list_of_ranges(list: &str) -> bool {
    list.split(',').map(str::trim).filter(|part| !part.is_empty()).all(|part| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        matches!((first.parse::<u32>(), last.parse::<u32>()), (Ok(a), Ok(b)) if a <= b)
    }) && list.contains(|c: char| c.is_ascii_digit())
}

fn is_page_size(size: &str) -> bool {
    ["KB", "MB", "GB"]
        .iter()
        .filter_map(|unit| size.strip_suffix(unit))
        .any(|n| !n.is_empty() && !n.starts_with('0') && n.bytes().all(|b| b.is_ascii_digit()))
}

#[cfg(test)]
mod tests;
