//! Names of kernel parameters: the two spellings, the path below `/proc/sys`, and which namespace owns each.

/// The namespace that a kernel parameter belongs to, without which it must not be set for a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    /// System V and POSIX message parameters.
    Ipc,
    /// Everything below `net`.
    Network,
    /// `kernel.domainname`.
    Uts,
    /// `kernel.hostname`, which has a field of its own in the configuration.
    Hostname,
    /// Limits on the number of objects for each user, below `user`.
    User,
}

/// The components of a parameter's name, or `None` if it names no file strictly below `/proc/sys`.
///
/// As in sysctl(8), the first separator in the name says which spelling it is: with `.` first,
/// `net.ipv4.conf.eno2/100.rp_filter` has `.` for separator and `/` for a dot inside a component; with `/`
/// first, it is the other way round.
pub fn components(name: &str) -> Option<Vec<String>> {
    let slashes = name.find(['.', '/']).is_some_and(|i| name.as_bytes()[i] == b'/');
    let (separator, dot) = if slashes { ('/', '/') } else { ('.', '/') };
    let components: Vec<String> = name
        .split(separator)
        .map(|part| if slashes { part.to_owned() } else { part.replace(dot, ".") })
        .collect();
    let good = |part: &String| !part.is_empty() && part != "." && part != ".." && !part.contains(['/', '\0']);
    (components.len() > 1 && components.iter().all(good)).then_some(components)
}

/// The path of a parameter relative to `/proc/sys`, or `None` if the name is no good (see [`components`]).
/// No component of it is empty, `.` or `..`.
pub fn path(name: &str) -> Option<String> {
    components(name).map(|parts| parts.join("/"))
}

/// Which namespace a parameter belongs to; `None` for one of the whole machine. The list is closed: a
/// parameter that is not on it would change the host (class H of the threat model).
pub fn owner(components: &[String]) -> Option<Owner> {
    let parts: Vec<&str> = components.iter().map(String::as_str).collect();
    match parts[..] {
        [
            "kernel",
            "msgmax" | "msgmnb" | "msgmni" | "sem" | "shmall" | "shmmax" | "shmmni" | "shm_rmid_forced",
        ] => Some(Owner::Ipc),
        ["fs", "mqueue", _, ..] => Some(Owner::Ipc),
        ["net", _, ..] => Some(Owner::Network),
        ["kernel", "domainname"] => Some(Owner::Uts),
        ["kernel", "hostname"] => Some(Owner::Hostname),
        ["user", _, ..] => Some(Owner::User),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owner_of(name: &str) -> Option<Owner> {
        components(name).and_then(|c| owner(&c))
    }

    #[test]
    fn both_spellings_name_one_file() {
        let expected = Some("net/ipv4/conf/eno2.100/rp_filter");
        assert_eq!(path("net.ipv4.conf.eno2/100.rp_filter").as_deref(), expected);
        assert_eq!(path("net/ipv4/conf/eno2.100/rp_filter").as_deref(), expected);
        assert_eq!(path("kernel.sem").as_deref(), Some("kernel/sem"));
    }

    #[test]
    fn names_that_would_leave_proc_sys_are_refused() {
        for name in [
            "",
            "net",
            ".",
            "/",
            "net/../kernel/core_pattern",
            "net./..kernel",
            "net.//.kernel.core_pattern",
            "net/./x",
            "/net/x",
            "net..x",
            "net.a\0b",
            "net//x",
        ] {
            assert_eq!(path(name), None, "{name}");
        }
    }

    #[test]
    fn owners() {
        assert_eq!(owner_of("net.core.somaxconn"), Some(Owner::Network));
        assert_eq!(owner_of("fs.mqueue.msg_max"), Some(Owner::Ipc));
        assert_eq!(owner_of("kernel/shmmax"), Some(Owner::Ipc));
        assert_eq!(owner_of("user.max_user_namespaces"), Some(Owner::User));
        assert_eq!(owner_of("kernel.domainname"), Some(Owner::Uts));
        assert_eq!(owner_of("kernel.hostname"), Some(Owner::Hostname));
        for host in
            ["kernel.core_pattern", "kernel.shm", "vm.swappiness", "fs.mqueuex.a", "netx.a", "kernel.sem.a"]
        {
            assert_eq!(owner_of(host), None, "{host}");
        }
    }
}
