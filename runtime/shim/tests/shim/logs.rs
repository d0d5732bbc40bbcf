//! Output, from the container's write to the line in the file.

use std::fs::{self, OpenOptions};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use berth_runtime::shim::protocol::{Call, LogSpec};
use nix::mount::{MntFlags, MsFlags, mount, umount2};

use crate::pod::{Client, Pod, eventually, unstamped};

fn run_with_log(pod: &Pod, client: &mut Client, script: &str, log: LogSpec) {
    client.ask(Call::Subscribe);
    client.ask(Call::create("c", pod.bundle("c", script), Some(log)));
    client.ask(Call::Start { container: "c".into() });
}

/// The files of the log of `c`, oldest first.
fn files(pod: &Pod) -> Vec<PathBuf> {
    let entries = fs::read_dir(pod.folder.path()).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<_> =
        entries.filter(|path| path.file_name().unwrap().to_str().unwrap().starts_with("c.log")).collect();
    files.sort();
    // The current one has the shortest name.
    files.rotate_left(1);
    files
}

#[test]
fn both_streams_are_told_apart_and_the_last_line_may_lack_its_end() {
    let pod = Pod::start();
    let mut client = pod.connect();
    client.ask(Call::Subscribe);
    pod.run(&mut client, "c", "echo out; sleep 0.05; echo err >&2; sleep 0.05; printf 'no end'");
    client.exit_of("c");
    assert_eq!(pod.log("c"), ["stdout F out", "stderr F err", "stdout P no end"]);
}

#[test]
fn long_lines_come_in_parts_of_16_kib() {
    let pod = Pod::start();
    let mut client = pod.connect();
    client.ask(Call::Subscribe);
    pod.run(&mut client, "c", "head -c 40000 /dev/zero | tr '\\0' x; echo; head -c 16384 /dev/zero | tr '\\0' y; echo");
    client.exit_of("c");
    let parts = [("P", 'x', 16384), ("P", 'x', 16384), ("F", 'x', 40000 - 2 * 16384), ("F", 'y', 16384)];
    let expected = parts.map(|(tag, letter, count)| format!("stdout {tag} {}", letter.to_string().repeat(count)));
    assert_eq!(pod.log("c"), expected);
}

#[test]
fn fifty_megabytes_arrive_whole() {
    let pod = Pod::start();
    let mut client = pod.connect();
    let log = LogSpec { path: pod.log_path("c"), max_bytes: 0, max_files: 1 };
    run_with_log(&pod, &mut client, "seq 1 6800000", log);
    assert_eq!(client.exit_of("c").code, 0);
    let text = fs::read_to_string(pod.log_path("c")).unwrap();
    let mut count = 0;
    for (line, number) in text.lines().zip(1u32..) {
        assert_eq!(line[31..].strip_prefix("stdout F ").and_then(|text| text.parse().ok()), Some(number));
        count = number;
    }
    assert_eq!(count, 6_800_000);
    assert!(text.len() - 40 * 6_800_000 > 50_000_000);
}

#[test]
fn rotation_loses_and_tears_nothing_but_the_oldest() {
    let pod = Pod::start();
    let mut client = pod.connect();
    let max_bytes = 100_000;
    run_with_log(&pod, &mut client, "seq 1 20000", LogSpec { path: pod.log_path("c"), max_bytes, max_files: 4 });
    client.exit_of("c");
    let files = files(&pod);
    assert_eq!(files.len(), 4);
    let texts: Vec<String> = files.iter().map(|file| fs::read_to_string(file).unwrap()).collect();
    assert!(texts.iter().all(|text| text.len() as u64 <= max_bytes && text.ends_with('\n')));
    assert!(texts[..3].iter().all(|text| text.len() as u64 > max_bytes - 60), "a file was rotated too early");
    let numbers: Vec<u32> = (texts.iter().flat_map(|text| text.lines()))
        .map(|line| unstamped(line).strip_prefix("stdout F ").unwrap().parse().unwrap())
        .collect();
    let first = numbers[0];
    assert!(numbers.iter().copied().eq(first..=20000), "from {first} on, a line is missing");
}

#[test]
fn a_log_that_was_moved_is_opened_again() {
    let pod = Pod::start();
    let mut client = pod.connect();
    client.ask(Call::Subscribe);
    pod.run(&mut client, "c", "echo one; while [ ! -e /tmp/go ]; do sleep 0.01; done; echo two");
    eventually("the first line is there", || pod.log("c").len() == 1);
    fs::rename(pod.log_path("c"), pod.log_path("moved")).unwrap();
    client.ask(Call::ReopenLog { container: "c".into() });
    fs::write(pod.folder.path().join("rootfs/tmp/go"), "").unwrap();
    client.exit_of("c");
    assert_eq!((pod.log("moved"), pod.log("c")), (vec!["stdout F one".into()], vec!["stdout F two".into()]));
}

#[test]
fn somebody_else_who_holds_the_pipe_delays_the_end_but_not_for_ever() {
    let pod = Pod::start();
    let mut client = pod.connect();
    client.ask(Call::Subscribe);
    let pid = pod.run(&mut client, "c", "echo last words; sleep 1000");
    eventually("the line is there", || !pod.log("c").is_empty());
    let pipe = OpenOptions::new().write(true).open(format!("/proc/{pid}/fd/1")).unwrap();
    client.ask(Call::Kill { container: "c".into(), signal: 9, all: true });
    let began = Instant::now();
    assert_eq!(client.exit_of("c").code, 137);
    assert!((Duration::from_millis(500)..Duration::from_secs(10)).contains(&began.elapsed()));
    assert_eq!(pod.log("c"), ["stdout F last words"]);
    client.ask(Call::Delete { container: "c".into() });
    drop(pipe);
}

#[test]
fn a_container_that_reads_its_own_output_holds_nobody_up() {
    let pod = Pod::start();
    let mut client = pod.connect();
    client.ask(Call::Subscribe);
    // The thief wins often: what the shim was told is there has gone when it reads.
    let thief = "cat < /proc/self/fd/1 > /tmp/stolen & while [ ! -s /tmp/stolen ]; do echo bait; done
                 i=0; while [ $i -lt 2000 ]; do echo $i; i=$((i+1)); done
                 kill $!; wait; echo end";
    pod.run(&mut client, "c", thief);
    for _ in 0..100 {
        client.state();
    }
    assert_eq!(client.exit_of("c").code, 0);
    let log = pod.log("c");
    assert_eq!(log.last().map(String::as_str), Some("stdout F end"));
    let stolen = fs::metadata(pod.folder.path().join("rootfs/tmp/stolen")).unwrap();
    assert!(stolen.len() > 0, "nothing was stolen");
}

#[test]
fn two_busy_streams_share_one_log_and_tear_nothing() {
    let pod = Pod::start();
    let mut client = pod.connect();
    let max_bytes = 1 << 20;
    let log = LogSpec { path: pod.log_path("c"), max_bytes, max_files: 100 };
    run_with_log(&pod, &mut client, "seq 1 200000 & seq 1 200000 >&2; wait", log);
    // Others are served meanwhile.
    for _ in 0..10 {
        client.state();
    }
    assert_eq!(client.exit_of("c").code, 0);
    let files = files(&pod);
    assert!(files.len() > 15, "{}", files.len());
    let mut next = [1, 1];
    for file in files {
        let text = fs::read_to_string(file).unwrap();
        assert!(text.len() as u64 <= max_bytes && text.ends_with('\n'));
        for line in text.lines() {
            let (stream, number) = unstamped(line).split_once(" F ").unwrap();
            let expected = &mut next[usize::from(stream == "stderr")];
            assert_eq!(number.parse(), Ok(*expected), "{line:?}");
            *expected += 1;
        }
    }
    assert_eq!(next, [200_001; 2]);
}

#[test]
fn a_full_disk_costs_lines_but_neither_blocks_nor_tears() {
    struct Mounted(PathBuf);
    impl Drop for Mounted {
        fn drop(&mut self) {
            let _ = umount2(&self.0, MntFlags::MNT_DETACH);
        }
    }
    let pod = Pod::start();
    let disk = Mounted(pod.folder.path().join("disk"));
    fs::create_dir(&disk.0).unwrap();
    mount(Some("disk"), &disk.0, Some("tmpfs"), MsFlags::empty(), Some("size=256k")).unwrap();
    let mut client = pod.connect();
    let path = disk.0.join("c.log");
    let log = LogSpec { path: path.clone(), max_bytes: 0, max_files: 1 };
    run_with_log(&pod, &mut client, "seq 1 100000; while [ ! -e /tmp/go ]; do sleep 0.01; done; echo end", log);
    let lost = |client: &mut Client| client.state()["c"].log_bytes_lost;
    let deadline = Instant::now() + crate::pod::PATIENCE;
    // As much as came is either there or counted.
    let whole: u64 = (1..=100_000u64).map(|number| 40 + 1 + number.to_string().len() as u64).sum();
    while fs::metadata(&path).unwrap().len() + lost(&mut client) < whole {
        assert!(Instant::now() < deadline);
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(lost(&mut client) > 0);
    fs::write(disk.0.join("../rootfs/tmp/go"), "").unwrap();
    let text = fs::read_to_string(&path).unwrap();
    assert!(text.ends_with('\n') && text.lines().all(|line| unstamped(line).starts_with("stdout F ")));
    assert_eq!(client.exit_of("c").code, 0);
    let notes = fs::read_to_string(pod.dir.join("shim.log")).unwrap();
    assert!(notes.contains("losing output"), "{notes}");
}
