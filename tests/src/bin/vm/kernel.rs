//! Debian's kernel as QEMU boots it fastest: the ELF image out of the package's bzImage, and an
//! initramfs with the modules that reach the host's files.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::cpio::Archive;
use crate::error::Error;
use crate::options::Kernel;
use crate::packages;

/// What the guest needs before it has a root; the kernel's own modprobe loads the rest.
const BOOT_MODULES: [&str; 5] = ["virtio_pci", "virtio_console", "9pnet_virtio", "9p", "overlay"];

/// Parts of the package for hardware that the guest does not have.
const EXCLUDED: [&str; 18] = [
    "*/drivers/accel",
    "*/drivers/ata",
    "*/drivers/gpu",
    "*/drivers/hwmon",
    "*/drivers/iio",
    "*/drivers/infiniband",
    "*/drivers/input",
    "*/drivers/media",
    "*/drivers/mmc",
    "*/drivers/mtd",
    "*/drivers/net/ethernet",
    "*/drivers/net/wireless",
    "*/drivers/platform",
    "*/drivers/scsi",
    "*/drivers/staging",
    "*/drivers/usb",
    "*/kernel/sound",
    "./usr/share",
];

/// The directory of the cache that holds a kernel.
pub fn directory_name(kernel: Kernel) -> String {
    format!("kernel-{}", kernel.name())
}

/// The ELF image within the cache.
pub fn image(cache: &Path, kernel: Kernel) -> PathBuf {
    cache.join(directory_name(kernel)).join("vmlinux")
}

/// Puts a kernel into the cache, if it is not there: `vmlinux`, `modules.cpio` for the initramfs and
/// `layer`, a layer of the guest's root with all the modules.
///
/// # Errors
/// Those of apt, of the tools that unpack, and of files that are not what they should be.
pub fn provide(cache: &Path, kernel: Kernel) -> Result<(), Error> {
    packages::publish(cache, &directory_name(kernel), |directory| {
        let package = packages::download_kernel(directory, kernel)?;
        let layer = directory.join("layer");
        packages::unpack(&package, &layer, &EXCLUDED)?;
        fs::remove_file(&package).map_err(Error::file("remove", &package))?;

        let boot = layer.join("boot");
        let compressed = only_entry(&boot, "vmlinuz-")?;
        let vmlinux = directory.join("vmlinux");
        fs::write(&vmlinux, elf_image(&compressed)?).map_err(Error::file("write", &vmlinux))?;
        fs::remove_dir_all(&boot).map_err(Error::file("remove", &boot))?;

        let modules = only_entry(&layer.join("usr/lib/modules"), "")?;
        let release = modules.file_name().unwrap_or_default();
        packages::succeed(
            Command::new("depmod").arg("--basedir").arg(layer.join("usr")).arg(release),
            "depmod",
        )?;
        let archive = directory.join("modules.cpio");
        fs::write(&archive, modules_archive(&modules)?).map_err(Error::file("write", &archive))
    })
}

/// The initramfs of one run, with `session_files` (a further archive) at its end.
///
/// # Errors
/// [`Error::File`] when the cache cannot be read.
pub fn initrd(cache: &Path, kernel: Kernel, session_files: &[u8]) -> Result<Vec<u8>, Error> {
    let read = |path: PathBuf| fs::read(&path).map_err(Error::file("read", &path));
    let mut archive = Archive::default();
    for directory in ["bin", "cache", "dev", "host", "new", "proc", "scratch", "sys"] {
        archive.directory(directory);
    }
    archive.file("bin/busybox", 0o755, &read(cache.join("tools/busybox/usr/bin/busybox"))?);
    archive.file("init", 0o755, include_bytes!("init.sh"));
    archive.directory("dhow");
    archive.file("dhow/session.sh", 0o644, include_bytes!("session.sh"));
    let mut bytes = archive.finish();
    bytes.extend(read(cache.join(directory_name(kernel)).join("modules.cpio"))?);
    bytes.extend_from_slice(session_files);
    Ok(bytes)
}

/// The one entry of a directory whose name begins so.
fn only_entry(directory: &Path, prefix: &str) -> Result<PathBuf, Error> {
    let entries = fs::read_dir(directory).map_err(Error::file("read", directory))?;
    let mut found = entries
        .filter_map(Result::ok)
        .filter(|entry| entry.file_name().to_string_lossy().starts_with(prefix))
        .map(|entry| entry.path());
    match (found.next(), found.next()) {
        (Some(path), None) => Ok(path),
        _ => Err(Error::Format {
            path: directory.to_owned(),
            why: format!("not one entry that begins with {prefix:?}"),
        }),
    }
}

/// The kernel's ELF image, which a bzImage carries compressed.
fn elf_image(path: &Path) -> Result<Vec<u8>, Error> {
    let bytes = fs::read(path).map_err(Error::file("read", path))?;
    let format = |why: &str| Error::Format { path: path.to_owned(), why: why.to_owned() };
    let payload = payload(&bytes).ok_or_else(|| format("no bzImage of boot protocol 2.08 or later"))?;
    let (program, arguments): (_, &[&str]) = match payload {
        [0xfd, b'7', b'z', b'X', b'Z', ..] => ("xz", &["--decompress", "--stdout", "--single-stream"]),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => ("zstd", &["--decompress", "--stdout", "--quiet"]),
        [0x1f, 0x8b, ..] => ("gzip", &["--decompress", "--stdout"]),
        _ => return Err(format("its payload is compressed in an unknown way")),
    };
    let image = decompress(program, arguments, payload)?;
    if !image.starts_with(b"\x7fELF") {
        return Err(format("its payload is no ELF image"));
    }
    Ok(image)
}

/// The compressed image within a bzImage, by the setup header of the x86 boot protocol.
fn payload(bytes: &[u8]) -> Option<&[u8]> {
    let number = |offset: usize| {
        let field = bytes.get(offset..offset + 4)?;
        Some(u32::from_le_bytes(field.try_into().ok()?) as usize)
    };
    let version = number(0x206)? & 0xffff;
    if bytes.get(0x202..0x206)? != b"HdrS" || version < 0x208 {
        return None;
    }
    // A setup of 0 sectors means 4; the boot sector comes before it.
    let setup_sectors = match bytes.get(0x1f1)? {
        0 => 4,
        &sectors => usize::from(sectors),
    };
    let begin = (setup_sectors + 1) * 512 + number(0x248)?;
    let payload = bytes.get(begin..begin.checked_add(number(0x24c)?)?)?;
    // Behind all but gzip, which has it anyhow, the build adds the image's size: four bytes that
    // decompressors would take for garbage.
    if payload.starts_with(&[0x1f, 0x8b]) {
        Some(payload)
    } else {
        payload.get(..payload.len().checked_sub(4)?)
    }
}

fn decompress(program: &str, arguments: &[&str], input: &[u8]) -> Result<Vec<u8>, Error> {
    let start = |source| Error::Start { program: program.to_owned(), source };
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(start)?;
    let pipe = child.stdin.take();
    let output = std::thread::scope(|scope| {
        // A write that fails shows in the program's status.
        scope.spawn(move || pipe.map(|mut pipe| pipe.write_all(input)));
        child.wait_with_output()
    })
    .map_err(start)?;
    if !output.status.success() {
        return Err(Error::Failed { program: program.to_owned(), why: output.status.to_string() });
    }
    Ok(output.stdout)
}

/// The boot modules and what they depend on, decompressed, with `modules/order` to load them by.
fn modules_archive(modules: &Path) -> Result<Vec<u8>, Error> {
    let dependencies = modules.join("modules.dep");
    let text = fs::read_to_string(&dependencies).map_err(Error::file("read", &dependencies))?;
    let built_in = modules.join("modules.builtin");
    let built_in = fs::read_to_string(&built_in).map_err(Error::file("read", &built_in))?;
    let order = load_order(&text, &built_in, &BOOT_MODULES)
        .map_err(|name| Error::Format { path: dependencies, why: format!("has no module {name}") })?;
    let mut archive = Archive::default();
    archive.directory("modules");
    let mut names = String::new();
    for file in order {
        let path = modules.join(file);
        let bytes = fs::read(&path).map_err(Error::file("read", &path))?;
        let bytes = match path.extension().and_then(|extension| extension.to_str()) {
            Some("xz") => decompress("xz", &["--decompress", "--stdout"], &bytes)?,
            Some("zst") => decompress("zstd", &["--decompress", "--stdout", "--quiet"], &bytes)?,
            _ => bytes,
        };
        let name = module_name(file);
        archive.file(&format!("modules/{name}"), 0o644, &bytes);
        names.push_str(&name);
        names.push('\n');
    }
    archive.file("modules/order", 0o644, names.as_bytes());
    Ok(archive.finish())
}

/// The files of these modules, each after those it depends on; a module that is neither in
/// `modules.dep` nor built in is the error.
fn load_order<'a>(dependencies: &'a str, built_in: &str, wanted: &[&str]) -> Result<Vec<&'a str>, String> {
    let table: BTreeMap<String, (&str, &str)> = dependencies
        .lines()
        .filter_map(|line| line.split_once(':'))
        .map(|(file, needed)| (module_name(file), (file, needed)))
        .collect();
    fn visit<'a>(
        name: &str,
        table: &BTreeMap<String, (&'a str, &'a str)>,
        order: &mut Vec<&'a str>,
    ) -> Result<(), String> {
        let &(file, needed) = table.get(name).ok_or_else(|| name.to_owned())?;
        if order.contains(&file) {
            return Ok(());
        }
        for dependency in needed.split_whitespace() {
            visit(&module_name(dependency), table, order)?;
        }
        order.push(file);
        Ok(())
    }
    let mut order = Vec::new();
    for name in wanted {
        if !built_in.lines().any(|file| module_name(file) == *name) {
            visit(name, &table, &mut order)?;
        }
    }
    Ok(order)
}

/// A module's name, from its file's: without directories and extensions, with underscores.
fn module_name(file: &str) -> String {
    let name = file.rsplit('/').next().unwrap_or(file);
    name.split('.').next().unwrap_or(name).replace('-', "_")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modules_come_after_what_they_need_and_once() {
        let dependencies = "kernel/fs/9p/9p.ko.xz: kernel/fs/netfs/netfs.ko.xz kernel/net/9p/9pnet.ko.xz\n\
            kernel/net/9p/9pnet.ko.xz:\n\
            kernel/fs/netfs/netfs.ko.xz: kernel/fs/fs-cache.ko.xz\n\
            kernel/fs/fs-cache.ko.xz:\n\
            kernel/net/9p/9pnet_virtio.ko.xz: kernel/net/9p/9pnet.ko.xz\n";
        let order = load_order(
            dependencies,
            "kernel/drivers/virtio/virtio_pci.ko\n",
            &["virtio_pci", "9p", "9pnet_virtio"],
        )
        .expect("all are known");
        let names: Vec<_> = order.iter().map(|file| module_name(file)).collect();
        assert_eq!(names, ["fs_cache", "netfs", "9pnet", "9p", "9pnet_virtio"]);
        assert_eq!(load_order(dependencies, "", &["virtio_pci"]), Err("virtio_pci".to_owned()));
    }

    #[test]
    fn the_payload_is_where_the_setup_header_says() {
        let mut image = vec![0_u8; 0x1000];
        image[0x1f1] = 2;
        image[0x202..0x206].copy_from_slice(b"HdrS");
        image[0x206..0x208].copy_from_slice(&0x20f_u16.to_le_bytes());
        image[0x248..0x24c].copy_from_slice(&16_u32.to_le_bytes());
        image[0x24c..0x250].copy_from_slice(&12_u32.to_le_bytes());
        let begin = 3 * 512 + 16;
        image[begin..begin + 12].copy_from_slice(b"\x28\xb5\x2f\xfdabcdSIZE");
        assert_eq!(payload(&image), Some(&b"\x28\xb5\x2f\xfdabcd"[..]));
        image[begin..begin + 2].copy_from_slice(&[0x1f, 0x8b]);
        assert_eq!(payload(&image).map(<[u8]>::len), Some(12));
        image[0x24c..0x250].copy_from_slice(&u32::MAX.to_le_bytes());
        assert_eq!(payload(&image), None);
        assert_eq!(payload(b"short"), None);
    }
}
