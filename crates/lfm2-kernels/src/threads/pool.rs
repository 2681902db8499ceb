//! Threads that wait for tasks.
//!
//! One job at a time: a number of tasks and a function. The caller publishes it, works on it like
//! everybody else, and returns when every task is done. There is no barrier: a worker that the
//! system has not given a core, or that still sleeps, is not waited for, because it holds no task.
//!
//! The heart is one number, [`Shared::left`]: how many tasks nobody has claimed. A thread claims
//! tasks by lowering it and reports them, when it finds none left, by lowering
//! [`Shared::unfinished`] as much. From its first claim until its report it *pins* the job: the
//! caller cannot return before `unfinished` is zero, and nobody can publish another job before the
//! caller has returned. So a thread looks at the job only between its first claim and its report.
//! A thread that read `left` in one job and lowers it in the next has made a claim on the next, which
//! is just as good; nothing it knows is from before its claim.
//!
//! Orders: `left` is published with Release and lowered with Acquire. Lowerings are
//! read-modify-writes, which continue the release sequence of the publication, so whoever claims
//! sees the job and everything before it. `unfinished` is lowered with Release and read with
//! Acquire, so the caller sees everything the tasks have written.

use std::any::Any;
use std::mem;
use std::num::NonZeroUsize;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicUsize, Ordering, fence};
use std::sync::{Arc, Mutex};
use std::thread::{Builder, JoinHandle};
use std::{io, ptr};

use super::bell::{Bell, lock};

/// A claim takes this part of what would be a thread's share of the tasks that are left: long runs
/// of neighbouring tasks at first, single ones at the end, where threads must finish together.
const CLAIMS_PER_SHARE: usize = 4;

/// More threads than this are not started.
const MAX_THREADS: usize = 512;

/// The workers, and the door to them.
pub(super) struct Pool {
    shared: Arc<Shared>,
    /// Whoever holds this may publish a job.
    crew: Mutex<Vec<Worker>>,
}

/// What the caller and the workers have in common.
struct Shared {
    /// Threads that jobs are meant for, the caller's included.
    threads: AtomicUsize,
    open: Apart<Open>,
    /// Tasks not reported yet.
    unfinished: Apart<AtomicUsize>,
    /// For the caller, when `unfinished` is zero.
    done: Bell,
}

/// What a claim needs.
struct Open {
    /// Tasks nobody has claimed yet; these are the last ones.
    left: AtomicUsize,
    /// Alive while `unfinished` is not zero.
    job: AtomicPtr<Job<'static>>,
}

/// A value on cache lines of its own (processors fetch them in pairs).
#[repr(align(128))]
struct Apart<T>(T);

struct Job<'a> {
    tasks: usize,
    f: &'a (dyn Fn(usize) + Sync),
    /// The panics of tasks, in the order in which they came.
    panics: Mutex<Vec<Box<dyn Any + Send>>>,
}

impl Pool {
    /// A pool for `threads` threads; they start with the first job.
    pub(super) fn new(threads: NonZeroUsize) -> Self {
        let shared = Shared {
            threads: AtomicUsize::new(1),
            open: Apart(Open {
                left: AtomicUsize::new(0),
                job: AtomicPtr::new(ptr::null_mut()),
            }),
            unfinished: Apart(AtomicUsize::new(0)),
            done: Bell::new(),
        };
        let pool = Self {
            shared: Arc::new(shared),
            crew: Mutex::new(Vec::new()),
        };
        pool.set_threads(threads);
        pool
    }

    /// Threads that jobs run on, the caller's included.
    pub(super) fn threads(&self) -> usize {
        self.shared.threads.load(Ordering::Relaxed)
    }

    /// Changes that from the next job on.
    pub(super) fn set_threads(&self, threads: NonZeroUsize) {
        let threads = threads.get().min(MAX_THREADS);
        self.shared.threads.store(threads, Ordering::Relaxed);
    }

    /// Calls `f` for every number below `tasks`, on several threads unless the pool is busy: then,
    /// and so inside a task, on this thread alone.
    ///
    /// # Panics
    /// When a task does. Other tasks may then be left out, but none still runs.
    pub(super) fn for_each(&self, tasks: usize, f: &(dyn Fn(usize) + Sync)) {
        let crew = if tasks > 1 && self.threads() > 1 {
            self.crew.try_lock().ok()
        } else {
            None
        };
        let Some(mut crew) = crew else {
            return (0..tasks).for_each(f);
        };
        self.fit(&mut crew);
        let job = Job {
            tasks,
            f,
            panics: Mutex::new(Vec::new()),
        };
        self.shared.publish(&job, &crew);
        self.shared.work();
        let unfinished = &self.shared.unfinished.0;
        self.shared
            .done
            .wait(|| unfinished.load(Ordering::Acquire) == 0);
        drop(crew);
        let mut panics = mem::take(&mut *lock(&job.panics));
        if !panics.is_empty() {
            resume_unwind(panics.swap_remove(0));
        }
    }

    /// Starts or ends workers until there are as many as wanted.
    fn fit(&self, crew: &mut Vec<Worker>) {
        let wanted = self.threads() - 1;
        crew.truncate(wanted);
        while crew.len() < wanted {
            let Ok(worker) = Worker::start(&self.shared, crew.len()) else {
                // The system allows no more, so these are the threads that there are.
                let threads = crew.len() + 1;
                self.shared.threads.store(threads, Ordering::Relaxed);
                break;
            };
            crew.push(worker);
        }
    }
}

impl Shared {
    /// Lets everybody claim tasks of `job`. The caller holds the crew, and stays until `unfinished`
    /// is zero.
    fn publish(&self, job: &Job<'_>, crew: &[Worker]) {
        // Nobody holds a claim, so nobody reads these until `left` is published.
        self.unfinished.0.store(job.tasks, Ordering::Relaxed);
        let address = ptr::from_ref(job).cast_mut().cast();
        self.open.0.job.store(address, Ordering::Relaxed);
        self.open.0.left.store(job.tasks, Ordering::Release);
        fence(Ordering::SeqCst);
        for worker in crew.iter().take(job.tasks - 1) {
            worker.orders.bell.ring();
        }
    }

    /// Runs tasks until none is left to claim.
    fn work(&self) {
        let mut ran = 0;
        while let Some((left, count)) = self.claim() {
            let job = self.open.0.job.load(Ordering::Relaxed);
            // SAFETY: the claim's Acquire shows the pointer published with these tasks, and no later
            // one is stored before they are reported, below. Until then the caller stays in
            // `for_each`, so the job, which is `Sync`, and what it borrows are alive, and only shared
            // references to it exist. This one is not used after the report.
            let job = unsafe { &*job };
            let first = job.tasks - left;
            job.run(first..first + count);
            ran += count;
        }
        if ran > 0 && self.unfinished.0.fetch_sub(ran, Ordering::Release) == ran {
            fence(Ordering::SeqCst);
            self.done.ring();
        }
    }

    /// Takes tasks: how many were left, and how many of these are now the caller's.
    fn claim(&self) -> Option<(usize, usize)> {
        let claims = CLAIMS_PER_SHARE * self.threads.load(Ordering::Relaxed);
        let mut left = self.open.0.left.load(Ordering::Relaxed);
        while left > 0 {
            let count = left.div_ceil(claims);
            match self.open.0.left.compare_exchange_weak(
                left,
                left - count,
                Ordering::Acquire,
                Ordering::Relaxed,
            ) {
                Ok(_) => return Some((left, count)),
                Err(now) => left = now,
            }
        }
        None
    }
}

impl Job<'_> {
    fn run(&self, tasks: Range<usize>) {
        if let Err(payload) = catch_unwind(AssertUnwindSafe(|| tasks.for_each(self.f))) {
            lock(&self.panics).push(payload);
        }
    }
}

/// A thread of the pool. Ends with its value.
struct Worker {
    orders: Arc<Orders>,
    thread: Option<JoinHandle<()>>,
}

struct Orders {
    bell: Bell,
    quit: AtomicBool,
}

impl Worker {
    fn start(shared: &Arc<Shared>, index: usize) -> io::Result<Self> {
        let orders = Arc::new(Orders {
            bell: Bell::new(),
            quit: AtomicBool::new(false),
        });
        let (shared, own) = (Arc::clone(shared), Arc::clone(&orders));
        let thread = Builder::new()
            .name(format!("lfm2-{}", index + 1))
            .spawn(move || own.follow(&shared))?;
        Ok(Self {
            orders,
            thread: Some(thread),
        })
    }
}

impl Orders {
    fn follow(&self, shared: &Shared) {
        let left = &shared.open.0.left;
        let quit = || self.quit.load(Ordering::Relaxed);
        while !quit() {
            self.bell
                .wait(|| left.load(Ordering::Relaxed) > 0 || quit());
            shared.work();
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.orders.quit.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        self.orders.bell.ring();
        if let Some(thread) = self.thread.take() {
            // Panics of tasks are caught, and there is nobody to tell of others.
            drop(thread.join());
        }
    }
}

#[cfg(test)]
mod tests;
