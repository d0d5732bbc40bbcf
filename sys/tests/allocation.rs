//! What a process may do between `clone3` and `execve`: allocate nothing, however long a path is.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::ffi::OsStr;
use std::path::Path;

use berth_sys::beneath::Root;
use nix::fcntl::OFlag;
use nix::sys::stat::Mode;

struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
}

// SAFETY: all is left to the system's allocator; the counter is of a type that allocates nothing itself.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        // SAFETY: what the caller promises of the layout is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: the block came from `alloc` above, by this layout.
        unsafe { System.dealloc(block, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn allocations(work: impl FnOnce()) -> usize {
    let before = ALLOCATIONS.get();
    work();
    ALLOCATIONS.get() - before
}

#[test]
fn paths_of_any_length_are_walked_without_allocating() {
    let top = tempfile::tempdir().unwrap();
    let root = Root::open(top.path()).unwrap();
    let name = "x".repeat(200);
    let long = vec![name.as_str(); 15].join("/");
    root.create_folders(Path::new(&long), Mode::S_IRWXU).unwrap();
    let (path, too_long) = (Path::new(&long), "x".repeat(5000));
    let (name, too_long) = (OsStr::new(&name), OsStr::new(&too_long));
    assert_eq!(allocations(|| drop(root.open_file(path, OFlag::O_PATH, Mode::empty()).unwrap())), 0);
    assert_eq!(allocations(|| drop(root.open_folder(path).unwrap())), 0);
    let folder = root.open_folder(path).unwrap();
    assert_eq!(allocations(|| folder.symlink(path.as_os_str(), name).unwrap()), 0);
    assert_eq!(folder.read_link(name).unwrap(), path);
    for (path, errno) in [(Path::new(too_long), libc::ENAMETOOLONG), (Path::new("a\0b"), libc::EINVAL)] {
        let mut told = None;
        assert_eq!(allocations(|| told = root.open_folder(path).err()), 0, "{}", path.display());
        assert_eq!(told.unwrap().raw_os_error(), Some(errno));
    }
    let mut told = None;
    assert_eq!(allocations(|| told = folder.make_folder(too_long, Mode::S_IRWXU).err()), 0);
    assert_eq!(told.unwrap().raw_os_error(), Some(libc::ENAMETOOLONG));
}
