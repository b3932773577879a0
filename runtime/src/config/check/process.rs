//! Rules for `process` and `hooks` (config.md, "Process", "Linux Process", "POSIX-platform Hooks").

use oci_spec::runtime::{Capabilities, Hook, Hooks, LinuxSchedulerPolicy, Process, Scheduler, User};

use super::Check;

impl Check<'_> {
    pub(super) fn process(&mut self, process: &Process, at: &str) {
        let cwd = process.cwd();
        if cwd.as_os_str().is_empty() {
            self.mistake(format_args!("{at}/cwd"), "is required");
        } else {
            self.absolute(format_args!("{at}/cwd"), cwd);
        }
        let args = process.args().as_deref().unwrap_or_default();
        if args.is_empty() {
            self.mistake(format_args!("{at}/args"), "needs at least one entry");
        }
        for (i, arg) in args.iter().enumerate() {
            self.no_nul(format_args!("{at}/args/{i}"), arg.as_bytes());
        }
        for (i, entry) in process.env().iter().flatten().enumerate() {
            self.no_nul(format_args!("{at}/env/{i}"), entry.as_bytes());
            match entry.find('=') {
                None => self.mistake(format_args!("{at}/env/{i}"), "is not of the form NAME=VALUE"),
                Some(0) => self.mistake(format_args!("{at}/env/{i}"), "has no name before the ="),
                Some(_) => {}
            }
        }
        self.user(process.user(), at);
        self.capabilities(process, at);
        self.rlimits(process, at);
        if let Some(score) = process.oom_score_adj().filter(|score| !(-1000..=1000).contains(score)) {
            self.mistake(format_args!("{at}/oomScoreAdj"), format!("{score} is not between -1000 and 1000"));
        }
        if let Some(profile) = process.apparmor_profile() {
            self.no_nul(format_args!("{at}/apparmorProfile"), profile.as_bytes());
        }
        if let Some(label) = process.selinux_label() {
            self.no_nul(format_args!("{at}/selinuxLabel"), label.as_bytes());
        }
        if let Some(size) = process.console_size().filter(|_| process.terminal() == Some(true)) {
            for (name, value) in [("height", size.height()), ("width", size.width())] {
                if value > u64::from(u16::MAX) {
                    let pointer = format_args!("{at}/consoleSize/{name}");
                    self.mistake(pointer, format!("{value} is more than a terminal's {}", u16::MAX));
                }
            }
        }
        if let Some(scheduler) = process.scheduler() {
            self.scheduler(scheduler, at);
        }
        if let Some(io) = process.io_priority().as_ref().filter(|io| !(0..=7).contains(&io.priority())) {
            self.mistake(
                format_args!("{at}/ioPriority/priority"),
                format!("{} is not between 0 and 7", io.priority()),
            );
        }
        if let Some(affinity) = process.exec_cpu_affinity() {
            for (name, list) in [("initial", affinity.initial()), ("final", affinity.cpu_affinity_final())] {
                // The kernel's own bound on CONFIG_NR_CPUS is 8192 on x86, 4096 elsewhere.
                if list.as_deref().is_some_and(|list| super::parse_list(list, 8192).is_none()) {
                    self.mistake(
                        format_args!("{at}/execCPUAffinity/{name}"),
                        "is not a list of CPUs such as 0-3,7",
                    );
                }
            }
        }
    }

    fn user(&mut self, user: &User, at: &str) {
        // -1 means "leave as it is" to the system calls that change ids.
        for (name, id) in [("uid", user.uid()), ("gid", user.gid())] {
            if id == u32::MAX {
                self.mistake(format_args!("{at}/user/{name}"), format!("{id} is not a valid id"));
            }
        }
        for (i, &gid) in user.additional_gids().iter().flatten().enumerate() {
            if gid == u32::MAX {
                self.mistake(
                    format_args!("{at}/user/additionalGids/{i}"),
                    format!("{gid} is not a valid id"),
                );
            }
        }
        if let Some(umask) = user.umask().filter(|&umask| umask > 0o7777) {
            self.mistake(format_args!("{at}/user/umask"), format!("{umask} is more than 4095 (octal 7777)"));
        }
    }

    fn capabilities(&mut self, process: &Process, at: &str) {
        let Some(sets) = process.capabilities() else { return };
        let none = Capabilities::new();
        let permitted = sets.permitted().as_ref().unwrap_or(&none);
        let inheritable = sets.inheritable().as_ref().unwrap_or(&none);
        let mut beyond: Vec<String> = sets
            .effective()
            .iter()
            .flatten()
            .filter(|c| !permitted.contains(c))
            .map(|c| format!("CAP_{c}"))
            .collect();
        if !beyond.is_empty() {
            beyond.sort();
            self.mistake(
                format_args!("{at}/capabilities/effective"),
                format!("{} not in the permitted set, which the kernel refuses", beyond.join(", ")),
            );
        }
        let mut beyond: Vec<String> = sets
            .ambient()
            .iter()
            .flatten()
            .filter(|c| !permitted.contains(c) || !inheritable.contains(c))
            .map(|c| format!("CAP_{c}"))
            .collect();
        if !beyond.is_empty() {
            beyond.sort();
            self.warning(
                format_args!("{at}/capabilities/ambient"),
                format!("{} not in both the permitted and the inheritable set: ignored", beyond.join(", ")),
            );
        }
    }

    fn rlimits(&mut self, process: &Process, at: &str) {
        let rlimits = process.rlimits().as_deref().unwrap_or_default();
        let trusted = self.trusted(&format!("{at}/rlimits"));
        for (i, rlimit) in rlimits.iter().enumerate() {
            if trusted && rlimits[..i].iter().any(|earlier| earlier.typ() == rlimit.typ()) {
                self.mistake(
                    format_args!("{at}/rlimits/{i}/type"),
                    format!("{} stands twice in the list", rlimit.typ()),
                );
            }
            if rlimit.soft() > rlimit.hard() {
                self.mistake(
                    format_args!("{at}/rlimits/{i}/soft"),
                    format!("{} is more than the hard limit {}", rlimit.soft(), rlimit.hard()),
                );
            }
        }
    }

    fn scheduler(&mut self, scheduler: &Scheduler, at: &str) {
        use LinuxSchedulerPolicy::{SchedBatch, SchedDeadline, SchedFifo, SchedIso, SchedOther, SchedRr};
        if !self.trusted(&format!("{at}/scheduler/policy")) {
            return;
        }
        let at = format!("{at}/scheduler");
        let policy = *scheduler.policy();
        let nice = scheduler.nice().unwrap_or(0);
        if matches!(policy, SchedOther | SchedBatch) && !(-20..=19).contains(&nice) {
            self.mistake(format_args!("{at}/nice"), format!("{nice} is not between -20 and 19"));
        }
        let priority = scheduler.priority().unwrap_or(0);
        match policy {
            SchedFifo | SchedRr if !(1..=99).contains(&priority) => {
                let message = format!("{policy} needs a priority from 1 to 99, not {priority}");
                self.mistake(format_args!("{at}/priority"), message);
            }
            SchedFifo | SchedRr => {}
            _ if priority != 0 => {
                let message = format!("only SCHED_FIFO and SCHED_RR have a priority, not {policy}");
                self.mistake(format_args!("{at}/priority"), message);
            }
            _ => {}
        }
        if policy == SchedIso {
            self.mistake(format_args!("{at}/policy"), "SCHED_ISO is not implemented by Linux");
        }
        let times = [
            ("runtime", scheduler.runtime().unwrap_or(0)),
            ("deadline", scheduler.deadline().unwrap_or(0)),
            ("period", scheduler.period().unwrap_or(0)),
        ];
        if policy != SchedDeadline {
            for (name, _) in times.iter().filter(|(_, nanoseconds)| *nanoseconds != 0) {
                let message = format!("only SCHED_DEADLINE has a {name}, not {policy}");
                self.mistake(format_args!("{at}/{name}"), message);
            }
            return;
        }
        let [(_, runtime), (_, deadline), (_, period)] = times;
        // As sched(7) has it: 1024 <= runtime <= deadline <= period, where a period of 0 is the deadline.
        if runtime < 1024 {
            self.mistake(format_args!("{at}/runtime"), format!("{runtime} ns is less than 1024"));
        }
        if runtime > deadline {
            self.mistake(
                format_args!("{at}/deadline"),
                format!("{deadline} ns is less than the runtime {runtime}"),
            );
        }
        if period != 0 && deadline > period {
            self.mistake(
                format_args!("{at}/period"),
                format!("{period} ns is less than the deadline {deadline}"),
            );
        }
    }

    pub(super) fn hooks(&mut self, hooks: &Hooks) {
        #[allow(deprecated, reason = "prestart is deprecated, and must be run all the same")]
        let prestart = hooks.prestart();
        for (kind, list) in [
            ("prestart", prestart),
            ("createRuntime", hooks.create_runtime()),
            ("createContainer", hooks.create_container()),
            ("startContainer", hooks.start_container()),
            ("poststart", hooks.poststart()),
            ("poststop", hooks.poststop()),
        ] {
            for (i, hook) in list.iter().flatten().enumerate() {
                self.hook(hook, &format!("/hooks/{kind}/{i}"));
            }
        }
    }

    fn hook(&mut self, hook: &Hook, at: &str) {
        if hook.path().as_os_str().is_empty() {
            self.mistake(format_args!("{at}/path"), "is required");
        } else {
            self.absolute(format_args!("{at}/path"), hook.path());
        }
        for (i, arg) in hook.args().iter().flatten().enumerate() {
            self.no_nul(format_args!("{at}/args/{i}"), arg.as_bytes());
        }
        for (i, entry) in hook.env().iter().flatten().enumerate() {
            self.no_nul(format_args!("{at}/env/{i}"), entry.as_bytes());
        }
        if let Some(seconds) = hook.timeout().filter(|&seconds| seconds <= 0) {
            self.mistake(format_args!("{at}/timeout"), format!("{seconds} is not greater than zero"));
        }
    }
}
