//! What to take back when a set-up fails half way.

/// A stack of steps back. Dropped, it runs them, last first; [`Undo::dismiss`]ed, it forgets them.
///
/// ```
/// let mut undo = berth_sys::undo::Undo::new();
/// std::fs::create_dir_all("/tmp/berth-undo-doc")?;
/// undo.push(|| drop(std::fs::remove_dir("/tmp/berth-undo-doc")));
/// // … more that can fail with `?` …
/// undo.dismiss();
/// # std::fs::remove_dir("/tmp/berth-undo-doc")?;
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Default)]
#[must_use = "dropped at once, it undoes at once"]
pub struct Undo<'a> {
    steps: Vec<Box<dyn FnOnce() + Send + 'a>>,
}

impl<'a> Undo<'a> {
    /// Nothing to undo yet.
    pub fn new() -> Self {
        Self { steps: Vec::new() }
    }

    /// Remembers how to take back what was just done. A step tells nobody of its own failure.
    pub fn push(&mut self, step: impl FnOnce() + Send + 'a) {
        self.steps.push(Box::new(step));
    }

    /// The set-up is complete: nothing is taken back.
    pub fn dismiss(mut self) {
        self.steps.clear();
    }
}

impl Drop for Undo<'_> {
    fn drop(&mut self) {
        while let Some(step) = self.steps.pop() {
            step();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    #[test]
    fn steps_run_backwards_unless_dismissed() {
        let seen = Mutex::new(Vec::new());
        let mut undo = Undo::new();
        undo.push(|| seen.lock().unwrap().push(1));
        undo.push(|| seen.lock().unwrap().push(2));
        drop(undo);
        let mut undo = Undo::new();
        undo.push(|| seen.lock().unwrap().push(3));
        undo.dismiss();
        assert_eq!(*seen.lock().unwrap(), [2, 1]);
    }
}
