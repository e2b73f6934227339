//! How much memory a process can still use before Linux kills one.

use std::fs;
use std::path::Path;

/// Bytes that are left: of the machine, swap included, and of each control group that the process is in (a
/// container, a job of a batch system). What only caches files counts as left. None if nothing says so.
pub fn available() -> Option<u64> {
    available_under(Path::new("/"))
}

fn available_under(root: &Path) -> Option<u64> {
    let read = |path: &str| fs::read_to_string(root.join(path)).ok();
    let machine = read("proc/meminfo").and_then(|info| {
        let kilobytes = number_after(&info, "MemAvailable:")? + number_after(&info, "SwapFree:").unwrap_or(0);
        Some(kilobytes * 1024)
    });
    let groups = read("proc/self/cgroup").unwrap_or_default();
    // A line is `number:controllers:path`; version 2 has the number 0 and no controllers.
    let of_groups = groups.lines().filter_map(|line| {
        let mut parts = line.splitn(3, ':').skip(1);
        let (controllers, path) = (parts.next()?, parts.next()?.trim_start_matches('/'));
        match controllers {
            "" => left_in(&root.join("sys/fs/cgroup"), path, &VERSION_2),
            "memory" => left_in(&root.join("sys/fs/cgroup/memory"), path, &VERSION_1),
            _ => None,
        }
    });
    machine.into_iter().chain(of_groups).min()
}

/// Files of a control group, and words in its `memory.stat`.
struct Names {
    limit: &'static str,
    used: &'static str,
    cached: [&'static str; 2],
}

const VERSION_1: Names = Names {
    limit: "memory.limit_in_bytes",
    used: "memory.usage_in_bytes",
    cached: ["total_inactive_file", "total_active_file"],
};

const VERSION_2: Names =
    Names { limit: "memory.max", used: "memory.current", cached: ["inactive_file", "active_file"] };

/// The least that a group and those around it have left. In a container the path may be the host's, which is
/// not to be seen, and the container's own group is at the top.
fn left_in(top: &Path, path: &str, names: &Names) -> Option<u64> {
    let groups = Path::new(path).ancestors().map(|group| top.join(group));
    groups
        .filter_map(|group| {
            let read = |name| fs::read_to_string(group.join(name)).ok();
            let limit: u64 = read(names.limit)?.trim().parse().ok()?; // "max" is none
            let used: u64 = read(names.used)?.trim().parse().ok()?;
            let stat = read("memory.stat").unwrap_or_default();
            let cached: u64 = names.cached.iter().filter_map(|name| number_after(&stat, name)).sum();
            Some(limit.saturating_sub(used.saturating_sub(cached)))
        })
        .min()
}

/// The number in the line that begins with a word.
fn number_after(text: &str, word: &str) -> Option<u64> {
    let found = text.lines().find_map(|line| {
        let mut parts = line.split_whitespace();
        (parts.next() == Some(word)).then(|| parts.next())
    });
    found??.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MEMINFO: (&str, &str) =
        ("proc/meminfo", "MemTotal: 900 kB\nMemAvailable:     300 kB\nSwapFree: 100 kB\n");

    fn left(files: &[(&str, &str)]) -> Option<u64> {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        available_under(root.path())
    }

    #[test]
    fn the_machine_limits() {
        assert_eq!(left(&[]), None);
        assert_eq!(left(&[MEMINFO]), Some(400 << 10));
        let no_limit = [
            MEMINFO,
            ("proc/self/cgroup", "0::/a\n"),
            ("sys/fs/cgroup/a/memory.max", "max\n"),
            ("sys/fs/cgroup/a/memory.current", "1000\n"),
        ];
        assert_eq!(left(&no_limit), Some(400 << 10));
    }

    #[test]
    fn a_group_and_those_around_it_limit() {
        let version_2 = |outer: &str| {
            left(&[
                MEMINFO,
                ("proc/self/cgroup", "0::/job/step\n"),
                ("sys/fs/cgroup/job/memory.max", outer),
                ("sys/fs/cgroup/job/memory.current", "5000\n"),
                ("sys/fs/cgroup/job/memory.stat", "anon 2000\ninactive_file 1000\nactive_file 2000\n"),
                ("sys/fs/cgroup/job/step/memory.max", "9000\n"),
                ("sys/fs/cgroup/job/step/memory.current", "1000\n"),
            ])
        };
        assert_eq!(version_2("6000\n"), Some(4000));
        assert_eq!(version_2("max\n"), Some(8000));
        assert_eq!(version_2("1000\n"), Some(0));
    }

    #[test]
    fn a_container_sees_its_own_group_at_the_top() {
        let version_1 = [
            MEMINFO,
            ("proc/self/cgroup", "5:cpu:/docker/x\n4:memory:/docker/x\n0::/\n"),
            ("sys/fs/cgroup/memory/memory.limit_in_bytes", "7000\n"),
            ("sys/fs/cgroup/memory/memory.usage_in_bytes", "6000\n"),
            (
                "sys/fs/cgroup/memory/memory.stat",
                "inactive_file 9\ntotal_inactive_file 30\ntotal_active_file 4\n",
            ),
        ];
        assert_eq!(left(&version_1), Some(1034));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn this_machine_says_what_it_has() {
        assert!(available().is_some());
    }
}
