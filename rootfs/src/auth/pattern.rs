//! Which registries and repositories credentials are for, by the kubelet's rules. Pure.
//!
//! `[https://]host[:port][/path]`: the host's labels may have stars, each for any letters but a dot; a port must be the
//! same, written or not; the path begins the repository's. `/v1/` and `/v2/`, which docker writes, mean nothing.

use crate::reference::DEFAULT_REGISTRY;

/// Ordered by host, then path.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Pattern {
    host: String,
    path: String,
}

impl Pattern {
    /// Any text is a pattern; one that makes no sense fits nothing.
    pub(super) fn parse(text: &str) -> Self {
        let text = text.strip_prefix("https://").or(text.strip_prefix("http://")).unwrap_or(text);
        let (host, path) = text.split_once('/').unwrap_or((text, ""));
        let path = match path.split_once('/').unwrap_or((path, "")) {
            ("v1" | "v2", rest) => rest,
            _ => path,
        };
        // The hub's names, of which images have one only.
        let host = match host.to_ascii_lowercase() {
            hub if matches!(&*hub, "index.docker.io" | "registry-1.docker.io") => DEFAULT_REGISTRY.to_owned(),
            other => other,
        };
        Self { host, path: path.to_owned() }
    }

    /// Whether it is for `repository` at `host` (`host[:port]`).
    pub(super) fn fits(&self, host: &str, repository: &str) -> bool {
        let host = host.to_ascii_lowercase();
        let ((name, port), (wanted, wanted_port)) = (split_port(&self.host), split_port(&host));
        let fits = |(label, wanted): (&str, &str)| label_fits(label.as_bytes(), wanted.as_bytes());
        port == wanted_port
            && name.split('.').count() == wanted.split('.').count()
            && name.split('.').zip(wanted.split('.')).all(fits)
            && repository.starts_with(&self.path)
    }
}

fn split_port(host: &str) -> (&str, Option<&str>) {
    match host.rsplit_once(':') {
        Some((name, port)) if !port.contains(']') => (name, Some(port)),
        _ => (host, None),
    }
}

/// Whether `text` is what `glob` says. Only the last star met is ever taken back: what came before it fits already.
fn label_fits(glob: &[u8], text: &[u8]) -> bool {
    let (mut at, mut of) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while let Some(letter) = text.get(at) {
        match glob.get(of) {
            Some(b'*') => {
                star = Some((of, at));
                of += 1;
            }
            Some(wanted) if wanted == letter => (at, of) = (at + 1, of + 1),
            _ => match &mut star {
                Some((of_star, taken)) => {
                    *taken += 1;
                    (at, of) = (*taken, *of_star + 1);
                }
                None => return false,
            },
        }
    }
    glob.iter().skip(of).all(|letter| *letter == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(pattern: &str, name: &str, fits: bool) {
        let (host, repository) = name.split_once('/').unwrap();
        assert_eq!(Pattern::parse(pattern).fits(host, repository), fits, "{pattern} {name}");
    }

    #[test]
    fn credentials_are_for_hosts_ports_and_paths() {
        check("r.io", "r.io/app", true);
        check("https://r.io", "r.io/app", true);
        check("http://r.io/", "r.io/app", true);
        check("https://r.io/v2/", "r.io/app", true);
        check("r.io/v2/team", "r.io/team/app", true);
        check("R.io", "r.IO/app", true);
        check("r.io", "r.io:443/app", false);
        check("r.io:5000", "r.io:5000/app", true);
        check("r.io:5000", "r.io/app", false);
        check("[::1]:5000", "[::1]:5000/app", true);
        check("[::1]", "[::1]/app", true);
        check("r.io/team", "r.io/team/app", true);
        check("r.io/team/app", "r.io/team", false);
        check("r.io/team", "r.io/other/app", false);
        check("", "r.io/app", false);
        check("evil-r.io", "r.io/app", false);
        check("r.io", "evil-r.io/app", false);
    }

    #[test]
    fn the_hub_has_many_names() {
        for name in ["https://index.docker.io/v1/", "index.docker.io", "docker.io", "https://registry-1.docker.io/v2/"]
        {
            check(name, "docker.io/library/busybox", true);
        }
        check("https://index.docker.io/v1/", "r.io/library/busybox", false);
    }

    #[test]
    fn stars_stand_for_parts_of_labels() {
        check("*.r.io", "eu.r.io/app", true);
        check("*.r.io", "r.io/app", false);
        check("*.r.io", "a.b.r.io/app", false);
        check("*.*.r.io", "a.b.r.io/app", true);
        check("prefix*.r.io", "prefix5.r.io/app", true);
        check("*.r.io:5000/team", "a.r.io:5000/team/app", true);
        check("a*b*c.io", "axbxbxc.io/app", true);
        check("a*b*c.io", "axbxbx.io/app", false);
        check("**.io", "r.io/app", true);
        check("*", "localhost/app", true);
    }
}
