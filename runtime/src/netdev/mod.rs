//! Moving network interfaces of the host into a container's network namespace (`linux.netDevices`).
//!
//! The interface is set down, moved and renamed by one request, gets its permanent addresses of global scope
//! back, which the kernel drops on the way, and is set up. What the kernel keeps by itself (hardware address,
//! MTU, queue length, alias) is left alone. From then on the interface belongs to the namespace: it is never
//! moved back, the kernel does that, or destroys it, when the namespace ends.
//!
//! Specification: config-linux.md, "Network Devices".

mod netlink;

use std::os::fd::{AsRawFd, BorrowedFd};

use rustix::io::Errno;

use netlink::{
    Message, NLM_F_CREATE, NLM_F_EXCL, RTM_GETADDR, RTM_GETLINK, RTM_NEWADDR, RTM_NEWLINK, Request, Socket,
};

/// Bytes of `struct ifinfomsg` and `struct ifaddrmsg`.
const IFINFO_BYTES: usize = 16;
const IFADDR_BYTES: usize = 8;

const IFF_UP: u32 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_NET_NS_FD: u16 = 28;

const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_BROADCAST: u16 = 4;
const IFA_FLAGS: u16 = 8;
const IFA_RT_PRIORITY: u16 = 9;
const IFA_PROTO: u16 = 11;

const IFA_F_PERMANENT: u32 = 0x80;
/// Flags that a user chose, as opposed to the state of the address: NODAD, HOMEADDRESS, MANAGETEMPADDR,
/// NOPREFIXROUTE, MCAUTOJOIN.
const IFA_F_CHOSEN: u32 = 0x02 | 0x10 | 0x100 | 0x200 | 0x400;
const RT_SCOPE_UNIVERSE: u8 = 0;

/// Why an interface could not be moved.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No netlink socket could be made in the host's or the container's network namespace.
    #[error("open a netlink socket in {namespace} network namespace")]
    Socket {
        /// Whose namespace.
        namespace: &'static str,
        /// What the kernel said.
        source: Errno,
    },
    /// The host has no such interface, or it cannot be asked about.
    #[error("look up network interface {name} of the host")]
    Lookup {
        /// The interface.
        name: String,
        /// What the kernel said.
        source: Errno,
    },
    /// The container's namespace has an interface of that name.
    #[error("network interface {name} exists already in the container's network namespace")]
    Exists {
        /// The name.
        name: String,
    },
    /// The kernel refused a step.
    #[error("{action} network interface {name}")]
    Step {
        /// What was being done.
        action: &'static str,
        /// The interface, by its name on the host.
        name: String,
        /// What the kernel said.
        source: Errno,
    },
}

/// An address to be given back to an interface.
struct Address {
    family: u8,
    prefix_bits: u8,
    flags: u32,
    attributes: Vec<(u16, Vec<u8>)>,
}

/// Moves interface `name` of the calling thread's network namespace into `namespace`, where it is called
/// `new_name`. With `%d` in that name the kernel chooses a number that is free.
///
/// # Errors
/// See [`Error`]. Before the move itself, nothing has changed on the host after an error. After it, the
/// interface is in the container's namespace and shares its fate.
pub fn move_into(namespace: BorrowedFd<'_>, name: &str, new_name: &str) -> Result<(), Error> {
    let socket = |namespace| move |source| Error::Socket { namespace, source };
    let step = |action: &'static str| {
        let name = name.to_owned();
        move |source| Error::Step { action, name, source }
    };
    let mut host = Socket::new().map_err(socket("the host's"))?;
    let mut inside = Socket::in_namespace(namespace).map_err(socket("the container's"))?;

    let link = host.get(link_by_name(name));
    let link = link.map_err(|source| Error::Lookup { name: name.to_owned(), source })?;
    let index = link.u32(4);
    let was_up = link.u32(8) & IFF_UP != 0;
    let template = new_name.contains("%d");
    let before = if template {
        indices(&mut inside).map_err(step("choose a name for"))?
    } else {
        match inside.get(link_by_name(new_name)) {
            Ok(_) => return Err(Error::Exists { name: new_name.to_owned() }),
            Err(Errno::NODEV) => Vec::new(),
            Err(source) => return Err(step("check the new name of")(source)),
        }
    };
    // Before the interface goes down: that loses the addresses of IPv6.
    let addresses = addresses(&mut host, index).map_err(step("read the addresses of"))?;

    host.change(set_up(index, false)).map_err(step("set down"))?;
    let moving = Request::new(RTM_NEWLINK, 0, &ifinfo(index, 0, 0))
        .string(IFLA_IFNAME, new_name)
        .attribute(IFLA_NET_NS_FD, &namespace.as_raw_fd().to_ne_bytes());
    if let Err(source) = host.change(moving) {
        if was_up {
            // Best effort: the error to report is that of the move.
            let _ = host.change(set_up(index, true));
        }
        return Err(step("move")(source));
    }

    // The kernel may have given it another index.
    let index = if template {
        let after = indices(&mut inside).map_err(step("find moved"))?;
        after.into_iter().find(|i| !before.contains(i)).ok_or_else(|| step("find moved")(Errno::NODEV))?
    } else {
        inside.get(link_by_name(new_name)).map_err(step("find moved"))?.u32(4)
    };
    for address in &addresses {
        inside.change(add_address(index, address)).map_err(step("add an address to"))?;
    }
    inside.change(set_up(index, true)).map_err(step("set up"))
}

fn ifinfo(index: u32, flags: u32, change: u32) -> [u8; IFINFO_BYTES] {
    let mut fixed = [0; IFINFO_BYTES];
    fixed[4..8].copy_from_slice(&index.to_ne_bytes());
    fixed[8..12].copy_from_slice(&flags.to_ne_bytes());
    fixed[12..16].copy_from_slice(&change.to_ne_bytes());
    fixed
}

fn link_by_name(name: &str) -> Request {
    Request::new(RTM_GETLINK, 0, &ifinfo(0, 0, 0)).string(IFLA_IFNAME, name)
}

fn set_up(index: u32, up: bool) -> Request {
    Request::new(RTM_NEWLINK, 0, &ifinfo(index, if up { IFF_UP } else { 0 }, IFF_UP))
}

fn indices(socket: &mut Socket) -> Result<Vec<u32>, Errno> {
    let links = socket.dump(|| Request::new(RTM_GETLINK, 0, &ifinfo(0, 0, 0)))?;
    Ok(links.iter().map(|link| link.u32(4)).collect())
}

/// The addresses of an interface that go with it into another namespace.
fn addresses(socket: &mut Socket, index: u32) -> Result<Vec<Address>, Errno> {
    let all = socket.dump(|| Request::new(RTM_GETADDR, 0, &[0; IFADDR_BYTES]))?;
    let own = all.iter().filter(|message| message.u32(4) == index);
    Ok(own.filter_map(address_to_keep).collect())
}

fn address_to_keep(message: &Message) -> Option<Address> {
    let attributes = || message.attributes(IFADDR_BYTES);
    // The byte in the structure has no room for the newer flags.
    let flags = attributes().find(|(kind, _)| *kind == IFA_FLAGS);
    let flags = flags.map_or(u32::from(message.byte(2)), |(_, value)| netlink::number(value));
    if flags & IFA_F_PERMANENT == 0 || message.byte(3) != RT_SCOPE_UNIVERSE {
        return None;
    }
    // Not the label: it must start with the name of the interface, which may be another one now.
    let kept = [IFA_ADDRESS, IFA_LOCAL, IFA_BROADCAST, IFA_RT_PRIORITY, IFA_PROTO];
    let attributes = attributes().filter(|(kind, _)| kept.contains(kind));
    Some(Address {
        family: message.byte(0),
        prefix_bits: message.byte(1),
        flags: flags & IFA_F_CHOSEN,
        attributes: attributes.map(|(kind, value)| (kind, value.to_vec())).collect(),
    })
}

fn add_address(index: u32, address: &Address) -> Request {
    let mut fixed = [address.family, address.prefix_bits, 0, RT_SCOPE_UNIVERSE, 0, 0, 0, 0];
    fixed[4..8].copy_from_slice(&index.to_ne_bytes());
    let mut request = Request::new(RTM_NEWADDR, NLM_F_CREATE | NLM_F_EXCL, &fixed);
    for (kind, value) in &address.attributes {
        request = request.attribute(*kind, value);
    }
    request.attribute(IFA_FLAGS, &address.flags.to_ne_bytes())
}

#[cfg(test)]
#[allow(clippy::print_stderr, reason = "a test that is skipped says so")]
mod tests {
    use super::*;
    use std::fs::{self, File};
    use std::os::fd::AsFd;
    use std::os::unix::fs::MetadataExt;
    use std::process::{Child, Command};
    use std::time::{Duration, Instant};

    use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
    use serde_json::Value;

    /// A network namespace that a sleeping process holds.
    struct Namespace {
        process: Child,
        file: File,
    }

    impl Namespace {
        fn new() -> Namespace {
            let process = Command::new("unshare").args(["--net", "sleep", "60"]).spawn().unwrap();
            let path = format!("/proc/{}/ns/net", process.id());
            let own = fs::metadata("/proc/self/ns/net").unwrap().ino();
            let deadline = Instant::now() + Duration::from_secs(10);
            while fs::metadata(&path).unwrap().ino() == own {
                assert!(Instant::now() < deadline, "unshare did nothing");
                std::thread::sleep(Duration::from_millis(2));
            }
            Namespace { file: File::open(&path).unwrap(), process }
        }

        /// Runs `ip` in the namespace.
        fn ip(&self, args: &str) -> String {
            let target = format!("--target={}", self.process.id());
            let mut command = Command::new("nsenter");
            let output = command.args([&target, "--net", "ip"]).args(args.split(' ')).output().unwrap();
            assert!(output.status.success(), "ip {args}: {output:?}");
            String::from_utf8(output.stdout).unwrap()
        }

        /// The interface of that name, as `ip -j addr` describes it.
        fn interface(&self, name: &str) -> Option<Value> {
            let all: Value = serde_json::from_str(&self.ip("-j addr")).unwrap();
            all.as_array().unwrap().iter().find(|link| link["ifname"] == name).cloned()
        }
    }

    impl Drop for Namespace {
        fn drop(&mut self) {
            let _ = self.process.kill();
            let _ = self.process.wait();
        }
    }

    /// A namespace in the part of the host's with an interface `dhow0` in it, and one of a container.
    fn host_and_container(test: &str) -> Option<(Namespace, Namespace)> {
        if !rustix::process::geteuid().is_root() {
            eprintln!("SKIPPED {test}: needs root");
            return None;
        }
        let (host, container) = (Namespace::new(), Namespace::new());
        host.ip("link add dhow0 mtu 1400 address 02:00:00:00:00:42 type veth peer name dhow1");
        host.ip("link set dhow0 up");
        host.ip("link set dhow1 up");
        Some((host, container))
    }

    /// [`super::move_into`] in a thread whose namespace is `host`.
    fn move_from(host: &Namespace, container: &File, name: &str, new_name: &str) -> Result<(), Error> {
        let work = || {
            move_into_link_name_space(host.file.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
            move_into(container.as_fd(), name, new_name)
        };
        std::thread::scope(|scope| scope.spawn(work).join().unwrap())
    }

    fn addresses_of(interface: &Value) -> Vec<String> {
        let list = interface["addr_info"].as_array().unwrap().iter();
        let global = list.filter(|a| a["scope"] == "global");
        let mut list: Vec<_> =
            global.map(|a| format!("{}/{}", a["local"].as_str().unwrap(), a["prefixlen"])).collect();
        list.sort();
        list
    }

    #[test]
    fn moved_renamed_with_its_addresses_and_up() {
        let Some((host, container)) = host_and_container("moved_renamed_with_its_addresses_and_up") else {
            return;
        };
        host.ip("addr add 192.0.2.7/24 broadcast 192.0.2.255 dev dhow0");
        host.ip("addr add 192.0.2.8/24 dev dhow0 label dhow0:x");
        host.ip("addr add 2001:db8::7/64 dev dhow0 nodad");
        // Neither permanent nor global: these stay behind.
        host.ip("addr add 198.51.100.1/24 dev dhow0 valid_lft 1000 preferred_lft 1000");
        host.ip("addr add 169.254.1.1/16 scope link dev dhow0");
        move_from(&host, &container.file, "dhow0", "eth7").unwrap();

        assert_eq!(host.interface("dhow0"), None);
        let moved = container.interface("eth7").expect("in the container");
        assert_eq!(addresses_of(&moved), ["192.0.2.7/24", "192.0.2.8/24", "2001:db8::7/64"]);
        assert!(!moved.to_string().contains("169.254.1.1"), "{moved}");
        assert!(moved.to_string().contains("192.0.2.255"), "{moved}");
        assert!(moved["flags"].as_array().unwrap().iter().any(|flag| flag == "UP"), "{moved}");
        assert_eq!(moved["mtu"], 1400);
        assert_eq!(moved["address"], "02:00:00:00:00:42");
    }

    #[test]
    fn a_taken_name_changes_nothing() {
        let Some((host, container)) = host_and_container("a_taken_name_changes_nothing") else { return };
        host.ip("addr add 192.0.2.7/24 dev dhow0");
        let error = move_from(&host, &container.file, "dhow0", "lo").unwrap_err();
        assert!(matches!(error, Error::Exists { .. }), "{error}");
        let link = host.interface("dhow0").unwrap();
        assert_eq!(addresses_of(&link), ["192.0.2.7/24"]);
        assert!(link["flags"].as_array().unwrap().iter().any(|flag| flag == "UP"), "{link}");
    }

    #[test]
    fn a_template_takes_a_free_number() {
        let Some((host, container)) = host_and_container("a_template_takes_a_free_number") else { return };
        container.ip("link add eth0 type veth peer name other");
        host.ip("addr add 192.0.2.7/24 dev dhow0");
        move_from(&host, &container.file, "dhow0", "eth%d").unwrap();
        assert_eq!(addresses_of(&container.interface("eth1").unwrap()), ["192.0.2.7/24"]);
    }

    #[test]
    fn the_hosts_name_may_be_taken_inside() {
        let Some((host, container)) = host_and_container("the_hosts_name_may_be_taken_inside") else {
            return;
        };
        container.ip("link add dhow0 type veth peer name other");
        move_from(&host, &container.file, "dhow0", "eth0").unwrap();
        assert!(container.interface("eth0").is_some());
    }

    #[test]
    fn what_cannot_be_moved_stays_up() {
        let Some((host, container)) = host_and_container("what_cannot_be_moved_stays_up") else { return };
        host.ip("link set lo up");
        let error = move_from(&host, &container.file, "lo", "lo7").unwrap_err();
        assert!(matches!(error, Error::Step { action: "move", .. }), "{error}");
        let lo = host.interface("lo").unwrap();
        assert!(lo["flags"].as_array().unwrap().iter().any(|flag| flag == "UP"), "{lo}");
    }

    #[test]
    fn errors_name_the_interface() {
        let Some((host, container)) = host_and_container("errors_name_the_interface") else { return };
        let error = move_from(&host, &container.file, "nothing", "x").unwrap_err();
        assert_eq!(error.to_string(), "look up network interface nothing of the host");
        let not_a_namespace = File::open("/dev/null").unwrap();
        let error = move_from(&host, &not_a_namespace, "dhow0", "x").unwrap_err();
        assert!(matches!(error, Error::Socket { namespace: "the container's", .. }), "{error}");
    }
}
