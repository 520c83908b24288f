// SPDX-License-Identifier: Apache-2.0
//! One thing that is counted.

/// What is done, how often, and what one time may cost.
pub(crate) struct Case {
    pub(crate) name: &'static str,
    /// Instructions one time may take in the build of `cargo test`: today's number and about a fifth more.
    pub(crate) budget: u64,
    /// How many times `work` does it per call.
    pub(crate) times: u64,
    prepare: fn() -> Box<dyn FnMut()>,
}

impl Case {
    /// `prepare` makes what is needed and returns what does the work `times` times.
    pub(crate) fn new(name: &'static str, budget: u64, times: u64, prepare: fn() -> Box<dyn FnMut()>) -> Self {
        Self { name, budget, times, prepare }
    }

    /// Once to warm buffers and tables up, once more for the count.
    pub(crate) fn run(self) {
        let mut work = (self.prepare)();
        work();
        counted_by_callgrind(&mut *work);
    }
}

/// Callgrind counts between entry and return of this function, known to it by its plain name, and writes a profile for each call.
// SAFETY: nothing else in this program bears the name.
#[allow(unsafe_code)]
#[unsafe(no_mangle)]
#[inline(never)]
fn counted_by_callgrind(work: &mut dyn FnMut()) {
    std::hint::black_box(&work);
    work();
    std::hint::black_box(&work);
}

/// The name of [`counted_by_callgrind`].
pub(crate) const COUNTED: &str = "counted_by_callgrind";

/// What the standard library seeds its hash tables with: always the same here, so that their shapes, and with them the counts, are the same on every run.
// SAFETY: it stands in for the C library's function of this name and keeps its contract: it writes `length` bytes, which the caller owns.
#[allow(unsafe_code)]
#[unsafe(no_mangle)]
unsafe extern "C" fn getrandom(buffer: *mut u8, length: usize, _flags: u32) -> isize {
    // SAFETY: see above.
    unsafe { buffer.write_bytes(0x5a, length) };
    length.cast_signed()
}

/// The time of log lines: what it takes to write one depends on its digits.
// SAFETY: as above; it writes one `timespec`, which the caller owns.
#[allow(unsafe_code)]
#[unsafe(no_mangle)]
unsafe extern "C" fn clock_gettime(_clock: i32, time: *mut [i64; 2]) -> i32 {
    // SAFETY: two numbers of 64 bits are what a `timespec` is on the machines that have a budget.
    unsafe { time.write([1_700_000_000, 123_456_789]) };
    0
}
