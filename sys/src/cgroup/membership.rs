//! Which cgroups a process is in.

use std::path::Path;

use super::{Error, read};

/// A process' cgroup in each hierarchy, by its path there: `/proc/<pid>/cgroup` (cgroups(7)).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Membership(String);

impl Membership {
    /// The cgroups that a process is in now.
    pub fn of(pid: i32) -> Result<Self, Error> {
        read(format!("/proc/{pid}/cgroup").as_ref()).map(Self)
    }

    /// In the unified hierarchy.
    pub fn unified(&self) -> Option<&Path> {
        self.paths().find(|(controllers, _)| controllers.is_empty()).map(|(_, path)| path)
    }

    /// In the v1 hierarchy with this controller; `name=…` is one without any.
    pub fn with(&self, controller: &str) -> Option<&Path> {
        self.paths().find(|(names, _)| names.split(',').any(|name| name == controller)).map(|(_, path)| path)
    }

    fn paths(&self) -> impl Iterator<Item = (&str, &Path)> {
        self.0.lines().filter_map(|line| {
            let mut parts = line.splitn(3, ':').skip(1);
            Some((parts.next()?, Path::new(parts.next()?)))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_hierarchy_has_a_path_of_its_own() {
        let membership = |text: &str| Membership(text.to_owned());
        let mixed = membership("12:memory:/a\n4:cpu,cpuacct:/b:c\n1:name=systemd:/s\n0::/u:v\n");
        for (controller, path) in
            [("memory", Some("/a")), ("cpuacct", Some("/b:c")), ("name=systemd", Some("/s")), ("pids", None)]
        {
            assert_eq!(mixed.with(controller), path.map(Path::new), "{controller}");
        }
        assert_eq!(mixed.unified(), Some(Path::new("/u:v")));
        for nothing in ["", "4:cpu:/b", "garbage", "0:"] {
            assert_eq!((membership(nothing).unified(), membership(nothing).with("memory")), (None, None), "{nothing}");
        }
    }

    #[test]
    fn this_process_is_somewhere() {
        let own = Membership::of(std::process::id() as i32).unwrap();
        assert!(own.paths().count() > 0 && own.paths().all(|(_, path)| path.is_absolute()), "{own:?}");
    }
}
