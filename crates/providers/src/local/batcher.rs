//! Concurrent requests become batches. Requests put their tokenized texts here; the model's engine thread
//! takes texts of all waiting requests in turn, one each, until a step's token budget is full. So a short
//! query beside a request of two thousand texts waits for one step, not for the whole request, and a batch
//! is formed as late as possible. A request whose caller has gone is dropped before it costs anything.

use std::{
    collections::{HashMap, VecDeque},
    future::Future,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use embeddery_core::{EmbedError, ErrorKind, Fault, Priority, Retry};
use embeddery_engine::Tokens;
use tokio::sync::oneshot;

#[cfg(test)]
#[path = "queue_tests.rs"]
mod tests;

/// Tokens of one step, for each thread of the pool: enough rows to pay for reading the weights once, few
/// enough that a newcomer does not wait long.
pub(super) const STEP_TOKENS_PER_THREAD: usize = 512;

/// The most work of people that may wait. All who wait are served in turns, so with more of it everybody's answer would
/// come after callers and proxies have given up, and nobody's in time. Work of pipelines does not count: it has patience,
/// and one turn for many texts.
const MAX_QUEUE_WAIT: Duration = Duration::from_secs(30);

/// What a queue's thread runs.
pub(super) trait Compute: Send + Sync {
    /// Vectors of a batch, `[texts × dimensions]`; or what went wrong, for the log.
    fn encode(&self, batch: &[&Tokens]) -> Result<Vec<f32>, String>;
}

/// One model's waiting work.
pub(super) struct Batcher {
    state: Mutex<State>,
    arrived: Condvar,
    /// Tokens that may wait.
    limit: usize,
}

#[derive(Default)]
struct State {
    /// Every request that has not got its answer.
    jobs: HashMap<u64, PendingRequest>,
    /// The requests with texts not yet taken, in the order in which they are served next.
    turns: VecDeque<u64>,
    /// Tokens not yet taken, over all requests.
    tokens: usize,
    /// Those that people wait for.
    interactive_tokens: usize,
    /// Tokens per second of the last steps, smoothed; zero before the first.
    rate: f64,
    next_id: u64,
    closed: bool,
}

/// One request.
struct PendingRequest {
    /// Texts not yet taken, with their place in the request.
    texts: VecDeque<(usize, Tokens)>,
    /// How many texts the request has, and how many of them have no vector yet.
    total: usize,
    missing: usize,
    priority: Priority,
    /// `[total × dimensions]`, filled step by step.
    vectors: Vec<f32>,
    reply: oneshot::Sender<Answer>,
}

/// `[texts × dimensions]` of one request.
type Answer = Result<Vec<f32>, EmbedError>;

/// A text taken for a step: whose it is, which of theirs, and what to compute.
struct BatchItem {
    job: u64,
    index: usize,
    tokens: Tokens,
}

impl Batcher {
    /// Starts the model's thread, which computes steps of `budget` tokens. It ends, and lets the model go, when the queue is
    /// closed.
    pub(super) fn start(model: Arc<dyn Compute>, budget: usize, limit: usize) -> std::io::Result<Arc<Self>> {
        let queue = Arc::new(Self { state: Mutex::default(), arrived: Condvar::new(), limit });
        let worker = Arc::clone(&queue);
        let run = move || {
            worker.run(&*model, budget);
            drop(model);
        };
        std::thread::Builder::new().name("engine".into()).spawn(run)?;
        Ok(queue)
    }

    /// Puts a request in the queue and returns a future of its vectors; dropping that takes the request back.
    /// Refused when too much waits, except that an empty queue takes any request.
    pub(super) fn submit(
        &self,
        texts: Vec<Tokens>,
        priority: Priority,
    ) -> Result<impl Future<Output = Answer> + use<>, EmbedError> {
        let (reply, answer) = oneshot::channel();
        self.lock().admit((texts, priority), reply, self.limit)?;
        self.arrived.notify_one();
        Ok(async move {
            answer
                .await
                .unwrap_or_else(|_| Err(EmbedError::internal("the model was unloaded while it computed")))
        })
    }

    /// Ends the engine thread after its current step; waiting requests fail.
    pub(super) fn close(&self) {
        let closed = State { closed: true, ..State::default() };
        drop(std::mem::replace(&mut *self.lock(), closed));
        self.arrived.notify_all();
    }

    fn run(&self, model: &dyn Compute, budget: usize) {
        while let Some(batch) = self.next_batch(budget) {
            let began = Instant::now();
            let views: Vec<&Tokens> = batch.iter().map(|text| &text.tokens).collect();
            // A defect in the engine must cost the requests of one step, not the process.
            let computed = catch_unwind(AssertUnwindSafe(|| model.encode(&views)));
            let mut state = self.lock();
            match computed {
                Ok(Ok(vectors)) => state.deliver(&batch, &vectors, began.elapsed()),
                Ok(Err(error)) => {
                    tracing::error!(error, "a step failed");
                    state.fail(&batch);
                }
                Err(_) => state.fail(&batch),
            }
        }
    }

    /// Waits for work; `None` when the queue is closed.
    fn next_batch(&self, budget: usize) -> Option<Vec<BatchItem>> {
        let mut state = self.lock();
        loop {
            if state.closed {
                return None;
            }
            let batch = state.take(budget);
            if !batch.is_empty() {
                return Some(batch);
            }
            state = self.arrived.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn admit(
        &mut self,
        (texts, priority): (Vec<Tokens>, Priority),
        reply: oneshot::Sender<Answer>,
        limit: usize,
    ) -> Result<(), EmbedError> {
        let tokens: usize = texts.iter().map(Tokens::len).sum();
        if self.is_overloaded(tokens, priority, limit) {
            self.drop_abandoned();
            if self.is_overloaded(tokens, priority, limit) {
                return Err(self.overloaded());
            }
        }
        let (id, total) = (self.next_id, texts.len());
        self.next_id += 1;
        self.count(priority, |waiting| *waiting += tokens);
        self.turns.push_back(id);
        let texts = texts.into_iter().enumerate().collect();
        self.jobs.insert(
            id,
            PendingRequest { texts, total, missing: total, priority, vectors: Vec::new(), reply },
        );
        Ok(())
    }

    /// Whether these tokens would be too many beside those that wait already.
    fn is_overloaded(&self, tokens: usize, priority: Priority, limit: usize) -> bool {
        let bearable = match self.rate {
            0.0 => limit,
            rate => (rate * MAX_QUEUE_WAIT.as_secs_f64()) as usize,
        };
        let too_many = |waiting: usize, limit: usize| waiting > 0 && waiting + tokens > limit;
        too_many(self.tokens, limit)
            || priority == Priority::Interactive && too_many(self.interactive_tokens, bearable)
    }

    /// Changes what waits, for requests of this priority.
    fn count(&mut self, priority: Priority, change: impl Fn(&mut usize)) {
        change(&mut self.tokens);
        if priority == Priority::Interactive {
            change(&mut self.interactive_tokens);
        }
    }

    /// The next step's texts: one of each request in turn, until the budget is full. A text longer than the
    /// whole budget makes a step of its own.
    fn take(&mut self, budget: usize) -> Vec<BatchItem> {
        let (mut batch, mut room) = (Vec::new(), budget);
        while let Some(id) = self.turns.pop_front() {
            let Some(job) = self.jobs.get_mut(&id) else { continue };
            if job.reply.is_closed() {
                self.remove(id);
                continue;
            }
            let Some((index, tokens)) = job.texts.pop_front() else { continue };
            if tokens.len() > room && !batch.is_empty() {
                job.texts.push_front((index, tokens));
                self.turns.push_front(id);
                break;
            }
            if !job.texts.is_empty() {
                self.turns.push_back(id);
            }
            let priority = job.priority;
            self.count(priority, |waiting| *waiting -= tokens.len());
            room = room.saturating_sub(tokens.len());
            batch.push(BatchItem { job: id, index, tokens });
        }
        batch
    }

    /// Puts a step's vectors (`[batch × dimensions]`) in their places and answers the requests that are complete.
    fn deliver(&mut self, batch: &[BatchItem], vectors: &[f32], took: Duration) {
        let tokens: usize = batch.iter().map(|text| text.tokens.len()).sum();
        let rate = tokens as f64 / took.as_secs_f64().max(1e-6);
        self.rate = if self.rate == 0.0 { rate } else { 0.8 * self.rate + 0.2 * rate };
        let dim = vectors.len() / batch.len();
        for (text, vector) in batch.iter().zip(vectors.chunks_exact(dim)) {
            // Gone when its caller has hung up meanwhile.
            let Some(job) = self.jobs.get_mut(&text.job) else { continue };
            job.vectors.resize(job.total * dim, 0.0);
            job.vectors[text.index * dim..][..dim].copy_from_slice(vector);
            job.missing -= 1;
            if job.missing == 0
                && let Some(job) = self.remove(text.job)
            {
                // The caller may have hung up in this very moment; then nobody wants the answer.
                let _ = job.reply.send(Ok(job.vectors));
            }
        }
    }

    /// Tells every request of a step that the engine failed on it.
    fn fail(&mut self, batch: &[BatchItem]) {
        for text in batch {
            if let Some(job) = self.remove(text.job) {
                let _ = job.reply.send(Err(EmbedError::internal("the engine failed on this request")));
            }
        }
    }

    fn drop_abandoned(&mut self) {
        let gone: Vec<u64> =
            self.jobs.iter().filter(|(_, job)| job.reply.is_closed()).map(|(id, _)| *id).collect();
        for id in gone {
            self.remove(id);
        }
    }

    /// Takes a request out, with the tokens it still had waiting.
    fn remove(&mut self, id: u64) -> Option<PendingRequest> {
        let job = self.jobs.remove(&id)?;
        let tokens = job.texts.iter().map(|(_, tokens)| tokens.len()).sum::<usize>();
        self.count(job.priority, |waiting| *waiting -= tokens);
        Some(job)
    }

    fn overloaded(&self) -> EmbedError {
        let wait = if self.rate > 0.0 { self.tokens as f64 / self.rate } else { 1.0 };
        EmbedError::new(
            ErrorKind::Overloaded,
            Fault::Us,
            Retry::After(Duration::from_secs_f64(wait.clamp(1.0, 120.0))),
            format!("{} tokens wait for this model already; ask again later", self.tokens),
        )
    }
}
