//! `update`: other resource limits for a running container.

use std::ffi::OsString;
use std::fs;
use std::io::{self, Read};

use dhow_runtime::Rdt;
use oci_spec::runtime::{LinuxBlockIo, LinuxCpu, LinuxMemory, LinuxPids, LinuxResources};
use serde_json::Value;

use super::Session;
use super::args::{ArgError, Flags, invalid};
use super::error::CliError;

/// `update`.
pub fn update(session: &Session, flags: &Flags, operands: &[OsString]) -> Result<u8, CliError> {
    let id = session.id(operands)?;
    let mut resources = match flags.filled("resources") {
        Some(path) if path == "-" => {
            let mut text = Vec::new();
            let read = io::stdin().read_to_end(&mut text);
            read.map_err(|source| CliError::Read { path: "standard input".into(), source })?;
            parse(&text).map_err(|source| CliError::Parse { path: "standard input".into(), source })?
        }
        Some(path) => {
            let text = fs::read(path).map_err(|source| CliError::Open { path: path.into(), source })?;
            parse(&text).map_err(|source| CliError::Parse { path: path.into(), source })?
        }
        None => from_flags(flags)?,
    };
    if let Some(memory) = resources.memory() {
        #[allow(deprecated, reason = "callers still send it")]
        let kernel = memory.kernel();
        if kernel.is_some() || memory.kernel_tcp().is_some() {
            session.log.warn("Kernel memory settings are ignored and will be removed");
        }
    }
    settle(&mut resources);
    let rdt = Rdt {
        l3_cache_schema: flags.text("l3-cache-schema")?.map(str::to_owned),
        mem_bw_schema: flags.text("mem-bw-schema")?.map(str::to_owned),
    };
    session.runtime.update(id, &resources, &rdt)?;
    Ok(0)
}

/// Resources as engines write them: a value that is null, or an object of pids without a limit, says nothing.
fn parse(text: &[u8]) -> Result<LinuxResources, serde_json::Error> {
    let mut value: Value = serde_json::from_slice(text)?;
    if let Value::Object(members) = &mut value {
        members.retain(|_, member| {
            if let Value::Object(fields) = member {
                fields.retain(|_, field| !field.is_null());
            }
            !member.is_null()
        });
        if members.get("pids").is_some_and(|pids| pids.get("limit").is_none()) {
            members.remove("pids");
        }
    }
    serde_json::from_value(value)
}

fn from_flags(flags: &Flags) -> Result<LinuxResources, ArgError> {
    let mut resources = LinuxResources::default();

    let mut cpu = LinuxCpu::default();
    cpu.set_period(flags.number("cpu-period")?)
        .set_quota(flags.number("cpu-quota")?)
        .set_burst(flags.number("cpu-burst")?)
        .set_shares(flags.number("cpu-share")?)
        .set_realtime_period(flags.number("cpu-rt-period")?)
        .set_realtime_runtime(flags.number("cpu-rt-runtime")?)
        .set_idle(flags.number("cpu-idle")?)
        .set_cpus(flags.text("cpuset-cpus")?.map(str::to_owned))
        .set_mems(flags.text("cpuset-mems")?.map(str::to_owned));
    if cpu != LinuxCpu::default() {
        resources.set_cpu(Some(cpu));
    }

    let mut memory = LinuxMemory::default();
    memory
        .set_limit(bytes(flags, "memory")?)
        .set_swap(bytes(flags, "memory-swap")?)
        .set_reservation(bytes(flags, "memory-reservation")?)
        .set_kernel_tcp(bytes(flags, "kernel-memory-tcp")?);
    #[allow(deprecated, reason = "callers still send it")]
    memory.set_kernel(bytes(flags, "kernel-memory")?);
    if memory != LinuxMemory::default() {
        resources.set_memory(Some(memory));
    }

    match flags.number::<u16>("blkio-weight")? {
        None | Some(0) => {}
        weight => {
            let mut block_io = LinuxBlockIo::default();
            block_io.set_weight(weight);
            resources.set_block_io(Some(block_io));
        }
    }
    if let Some(limit) = flags.number("pids-limit")? {
        let mut pids = LinuxPids::default();
        pids.set_limit(limit);
        resources.set_pids(Some(pids));
    }
    Ok(resources)
}

/// Values that others imply.
fn settle(resources: &mut LinuxResources) {
    if let Some(memory) = resources.memory_mut() {
        // No limit on memory with one on swap cannot be.
        if memory.limit() == Some(-1) && memory.swap().is_none() {
            memory.set_swap(Some(0));
        }
    }
    if let Some(cpu) = resources.cpu_mut() {
        // The kernel refuses a weight for an idle cgroup, so an old one must not be written again.
        if cpu.idle().is_some() && cpu.shares().is_none() {
            cpu.set_shares(Some(0));
        }
    }
}

/// A size with a unit: `512m`, `1.5GiB`, `-1` for no limit.
fn bytes(flags: &Flags, flag: &'static str) -> Result<Option<i64>, ArgError> {
    let Some(text) = flags.text(flag)? else { return Ok(None) };
    if text == "-1" {
        return Ok(Some(-1));
    }
    size(text).map(Some).ok_or_else(|| invalid(flag, text, "a size such as 512m, or -1,"))
}

fn size(text: &str) -> Option<i64> {
    let end = text.rfind(|c: char| c.is_ascii_digit() || c == '.')? + 1;
    let (number, unit) = text.split_at(end);
    let unit = unit.trim_start().to_ascii_lowercase();
    let unit = match unit.strip_suffix("ib").or_else(|| unit.strip_suffix('b')) {
        Some(prefix) => prefix,
        None => &unit,
    };
    let shift = match unit {
        "" => 0,
        "k" => 10,
        "m" => 20,
        "g" => 30,
        "t" => 40,
        "p" => 50,
        _ => return None,
    };
    if let Ok(whole) = number.parse::<i64>() {
        return (whole >= 0).then(|| whole.checked_mul(1 << shift)).flatten();
    }
    let fraction: f64 = number.parse().ok().filter(|number| *number >= 0.0)?;
    let bytes = fraction * (1u64 << shift) as f64;
    (bytes < i64::MAX as f64).then_some(bytes as i64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::verbs;

    fn resources(args: &[&str]) -> Result<Value, String> {
        let (flags, _) = verbs::parse_for_test("update", args);
        let mut resources = from_flags(&flags).map_err(|error| error.to_string())?;
        settle(&mut resources);
        Ok(serde_json::to_value(resources).unwrap())
    }

    #[test]
    fn every_flag_goes_to_its_field() {
        let got = resources(&[
            "--blkio-weight=20",
            "--cpu-period=100000",
            "--cpu-quota",
            "-1",
            "--cpu-burst=5",
            "--cpu-share=512",
            "--cpu-rt-period=7",
            "--cpu-rt-runtime=8",
            "--cpu-idle=1",
            "--cpuset-cpus=0-1",
            "--cpuset-mems=0",
            "--memory=64m",
            "--memory-reservation=32m",
            "--memory-swap=-1",
            "--kernel-memory=1k",
            "--kernel-memory-tcp=2k",
            "--pids-limit=9",
            "id",
        ])
        .unwrap();
        let want = serde_json::json!({
            "blockIO": { "weight": 20 },
            "cpu": {
                "period": 100000, "quota": -1, "burst": 5, "shares": 512, "realtimePeriod": 7, "realtimeRuntime": 8,
                "idle": 1, "cpus": "0-1", "mems": "0"
            },
            "memory": {
                "limit": 67108864, "reservation": 33554432, "swap": -1, "kernel": 1024, "kernelTCP": 2048
            },
            "pids": { "limit": 9 }
        });
        assert_eq!(got, want);
    }

    #[test]
    fn nothing_given_is_nothing_changed() {
        assert_eq!(resources(&["id"]).unwrap(), serde_json::json!({}));
        assert_eq!(resources(&["--memory=", "--blkio-weight=0", "id"]).unwrap(), serde_json::json!({}));
        assert_eq!(
            resources(&["--pids-limit=0", "id"]).unwrap(),
            serde_json::json!({ "pids": { "limit": 0 } })
        );
    }

    #[test]
    fn values_that_follow_from_others() {
        assert_eq!(
            resources(&["--memory=-1", "--cpu-idle=1", "id"]).unwrap(),
            serde_json::json!({ "memory": { "limit": -1, "swap": 0 }, "cpu": { "idle": 1, "shares": 0 } })
        );
    }

    #[test]
    fn what_is_no_number_is_named() {
        assert_eq!(
            resources(&["--cpu-period=fast", "id"]).unwrap_err(),
            "invalid value \"fast\" for flag --cpu-period: a number expected"
        );
        assert_eq!(
            resources(&["--memory=lots", "id"]).unwrap_err(),
            "invalid value \"lots\" for flag --memory: a size such as 512m, or -1, expected"
        );
    }

    #[test]
    fn sizes() {
        for (text, want) in [
            ("0", Some(0)),
            ("1024", Some(1024)),
            ("1b", Some(1)),
            ("1k", Some(1024)),
            ("1KB", Some(1024)),
            ("1KiB", Some(1024)),
            ("32 MB", Some(32 << 20)),
            ("1.5g", Some(3 << 29)),
            ("2T", Some(2 << 40)),
            ("8191p", Some(8191 << 50)),
            ("8192p", None),
            ("9223372036854775807", Some(i64::MAX)),
            ("-2", None),
            ("", None),
            ("m", None),
            ("1x", None),
            ("1.2.3", None),
        ] {
            assert_eq!(size(text), want, "{text:?}");
        }
    }

    #[test]
    fn resources_of_engines() {
        let text = br#"{"memory":{"limit":100,"swap":null},"cpu":null,"pids":{},"blockIO":{"weight":3},"unified":{"a":"b"}}"#;
        let want = serde_json::json!({ "memory": { "limit": 100 }, "blockIO": { "weight": 3 }, "unified": { "a": "b" } });
        assert_eq!(serde_json::to_value(parse(text).unwrap()).unwrap(), want);
        assert!(parse(b"{").is_err());
        assert!(parse(br#"{"pids":{"limit":"x"}}"#).is_err());
    }
}
