//! Dynamic batching of concurrent requests. Requests submit their tokenized texts. The model's engine thread takes texts of
//! all waiting requests in turn, one each, until the token budget of a batch is used. So a short query beside a request of
//! two thousand texts waits for one batch and not for the whole request. A batch is formed as late as possible. Texts of
//! cancelled requests are dropped before they are computed.

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
#[path = "batcher_tests.rs"]
mod tests;

/// Maximum tokens of one batch per engine thread. It is large enough to amortise reading the weights once, and small enough
/// that a new request does not wait long.
pub(super) const BATCH_TOKENS_PER_THREAD: usize = 512;

/// Maximum time that the waiting interactive work may take. Waiting requests are served in turns, so with more work all
/// responses would come after their callers and proxies have timed out. Work of pipelines does not count: it has no
/// short deadline, and one turn of many texts per request.
const MAX_QUEUE_WAIT: Duration = Duration::from_secs(30);

/// The computation of a batch.
pub(super) trait Compute: Send + Sync {
    /// The vectors of a batch, `[texts × dimensions]`.
    ///
    /// # Errors
    /// What went wrong, for the log.
    fn encode(&self, batch: &[&Tokens]) -> Result<Vec<f32>, String>;
}

/// The queue of one model, and the thread that computes its batches.
pub(super) struct Batcher {
    state: Mutex<State>,
    arrived: Condvar,
    /// Maximum tokens that wait.
    max_waiting_tokens: usize,
}

#[derive(Default)]
struct State {
    /// All requests without a result.
    requests: HashMap<u64, PendingRequest>,
    /// The requests with waiting texts, in the order of their next turns.
    turns: VecDeque<u64>,
    /// Waiting tokens of all requests.
    waiting_tokens: usize,
    /// Waiting tokens of interactive requests.
    interactive_tokens: usize,
    /// Tokens per second, smoothed over the last batches; zero before the first.
    tokens_per_second: f64,
    next_id: u64,
    closed: bool,
}

/// One request.
struct PendingRequest {
    /// Waiting texts with their indices in the request.
    texts: VecDeque<(usize, Tokens)>,
    /// The number of texts.
    total: usize,
    /// The number of texts without a vector.
    remaining: usize,
    priority: Priority,
    /// `[total × dimensions]`, filled batch by batch.
    vectors: Vec<f32>,
    reply: oneshot::Sender<BatchResult>,
}

/// The vectors of one request, `[texts × dimensions]`.
type BatchResult = Result<Vec<f32>, EmbedError>;

/// A text of a batch, with its request and its index there.
struct BatchItem {
    request: u64,
    index: usize,
    tokens: Tokens,
}

/// A request that is to be enqueued.
struct Submission {
    texts: Vec<Tokens>,
    priority: Priority,
    reply: oneshot::Sender<BatchResult>,
}

impl Batcher {
    /// Starts the engine thread of a model. A batch has at most `batch_tokens` tokens. The thread ends and drops the model
    /// when the batcher is closed.
    pub(super) fn start(
        model: Arc<dyn Compute>,
        batch_tokens: usize,
        max_waiting_tokens: usize,
    ) -> std::io::Result<Arc<Self>> {
        let batcher = Arc::new(Self { state: Mutex::default(), arrived: Condvar::new(), max_waiting_tokens });
        let worker = Arc::clone(&batcher);
        let run = move || {
            worker.run(&*model, batch_tokens);
            drop(model);
        };
        std::thread::Builder::new().name("engine".into()).spawn(run)?;
        Ok(batcher)
    }

    /// Submits a request and returns a future of its vectors. Dropping the future cancels the request.
    ///
    /// # Errors
    /// [`ErrorKind::Overloaded`] if too much work is waiting. An empty queue accepts any request.
    pub(super) fn submit(
        &self,
        texts: Vec<Tokens>,
        priority: Priority,
    ) -> Result<impl Future<Output = BatchResult> + use<>, EmbedError> {
        let (reply, result) = oneshot::channel();
        self.lock().enqueue(Submission { texts, priority, reply }, self.max_waiting_tokens)?;
        self.arrived.notify_one();
        Ok(async move {
            result
                .await
                .unwrap_or_else(|_| Err(EmbedError::internal("the model was unloaded while it computed")))
        })
    }

    /// Ends the engine thread after its current batch. Waiting requests fail.
    pub(super) fn close(&self) {
        let closed = State { closed: true, ..State::default() };
        drop(std::mem::replace(&mut *self.lock(), closed));
        self.arrived.notify_all();
    }

    fn run(&self, model: &dyn Compute, batch_tokens: usize) {
        while let Some(batch) = self.next_batch(batch_tokens) {
            let started_at = Instant::now();
            let texts: Vec<&Tokens> = batch.iter().map(|item| &item.tokens).collect();
            // A panic in the engine fails the requests of one batch and not the process.
            let result = catch_unwind(AssertUnwindSafe(|| model.encode(&texts)));
            let mut state = self.lock();
            match result {
                Ok(Ok(vectors)) => state.deliver(&batch, &vectors, started_at.elapsed()),
                Ok(Err(error)) => {
                    tracing::error!(error, "batch failed");
                    state.fail(&batch);
                }
                Err(_) => state.fail(&batch),
            }
        }
    }

    /// Waits for the next batch; `None` if the batcher is closed.
    fn next_batch(&self, batch_tokens: usize) -> Option<Vec<BatchItem>> {
        let mut state = self.lock();
        loop {
            if state.closed {
                return None;
            }
            let batch = state.take_batch(batch_tokens);
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
    /// Adds a request, unless that would exceed `max_waiting_tokens` or take too long.
    fn enqueue(&mut self, submission: Submission, max_waiting_tokens: usize) -> Result<(), EmbedError> {
        let Submission { texts, priority, reply } = submission;
        let tokens: usize = texts.iter().map(Tokens::len).sum();
        if self.is_overloaded(tokens, priority, max_waiting_tokens) {
            self.drop_cancelled();
            if self.is_overloaded(tokens, priority, max_waiting_tokens) {
                return Err(self.overloaded());
            }
        }
        let (id, total) = (self.next_id, texts.len());
        self.next_id += 1;
        self.update_waiting(priority, |waiting| *waiting += tokens);
        self.turns.push_back(id);
        let texts = texts.into_iter().enumerate().collect();
        self.requests.insert(
            id,
            PendingRequest { texts, total, remaining: total, priority, vectors: Vec::new(), reply },
        );
        Ok(())
    }

    /// Whether these tokens would be too many in addition to the waiting ones.
    fn is_overloaded(&self, tokens: usize, priority: Priority, max_waiting_tokens: usize) -> bool {
        let max_interactive_tokens = match self.tokens_per_second {
            0.0 => max_waiting_tokens,
            rate => (rate * MAX_QUEUE_WAIT.as_secs_f64()) as usize,
        };
        let too_many = |waiting: usize, limit: usize| waiting > 0 && waiting + tokens > limit;
        too_many(self.waiting_tokens, max_waiting_tokens)
            || priority == Priority::Interactive && too_many(self.interactive_tokens, max_interactive_tokens)
    }

    /// Changes the numbers of waiting tokens for a request of this priority.
    fn update_waiting(&mut self, priority: Priority, change: impl Fn(&mut usize)) {
        change(&mut self.waiting_tokens);
        if priority == Priority::Interactive {
            change(&mut self.interactive_tokens);
        }
    }

    /// Takes the texts of the next batch, one of each request in turn, until the budget is used. A text longer than the
    /// whole budget becomes a batch of its own.
    fn take_batch(&mut self, batch_tokens: usize) -> Vec<BatchItem> {
        let (mut batch, mut budget) = (Vec::new(), batch_tokens);
        while let Some(id) = self.turns.pop_front() {
            let Some(request) = self.requests.get_mut(&id) else { continue };
            if request.reply.is_closed() {
                self.remove(id);
                continue;
            }
            let Some((index, tokens)) = request.texts.pop_front() else { continue };
            if tokens.len() > budget && !batch.is_empty() {
                request.texts.push_front((index, tokens));
                self.turns.push_front(id);
                break;
            }
            if !request.texts.is_empty() {
                self.turns.push_back(id);
            }
            let priority = request.priority;
            self.update_waiting(priority, |waiting| *waiting -= tokens.len());
            budget = budget.saturating_sub(tokens.len());
            batch.push(BatchItem { request: id, index, tokens });
        }
        batch
    }

    /// Copies the vectors of a batch (`[batch × dimensions]`) to their requests, and replies to the requests that are
    /// complete.
    fn deliver(&mut self, batch: &[BatchItem], vectors: &[f32], elapsed: Duration) {
        let tokens: usize = batch.iter().map(|item| item.tokens.len()).sum();
        let rate = tokens as f64 / elapsed.as_secs_f64().max(1e-6);
        self.tokens_per_second =
            if self.tokens_per_second == 0.0 { rate } else { 0.8 * self.tokens_per_second + 0.2 * rate };
        let dim = vectors.len() / batch.len();
        for (item, vector) in batch.iter().zip(vectors.chunks_exact(dim)) {
            // The request may have been cancelled meanwhile.
            let Some(request) = self.requests.get_mut(&item.request) else { continue };
            request.vectors.resize(request.total * dim, 0.0);
            request.vectors[item.index * dim..][..dim].copy_from_slice(vector);
            request.remaining -= 1;
            if request.remaining == 0
                && let Some(request) = self.remove(item.request)
            {
                // Sending fails if the request was cancelled at this moment. The vectors are not needed then.
                let _ = request.reply.send(Ok(request.vectors));
            }
        }
    }

    /// Fails all requests of a batch.
    fn fail(&mut self, batch: &[BatchItem]) {
        for item in batch {
            if let Some(request) = self.remove(item.request) {
                let _ = request.reply.send(Err(EmbedError::internal("the engine failed on this request")));
            }
        }
    }

    fn drop_cancelled(&mut self) {
        let cancelled: Vec<u64> = self
            .requests
            .iter()
            .filter(|(_, request)| request.reply.is_closed())
            .map(|(id, _)| *id)
            .collect();
        for id in cancelled {
            self.remove(id);
        }
    }

    /// Removes a request with its waiting texts.
    fn remove(&mut self, id: u64) -> Option<PendingRequest> {
        let request = self.requests.remove(&id)?;
        let tokens = request.texts.iter().map(|(_, tokens)| tokens.len()).sum::<usize>();
        self.update_waiting(request.priority, |waiting| *waiting -= tokens);
        Some(request)
    }

    fn overloaded(&self) -> EmbedError {
        let wait = if self.tokens_per_second > 0.0 {
            self.waiting_tokens as f64 / self.tokens_per_second
        } else {
            1.0
        };
        EmbedError::new(
            ErrorKind::Overloaded,
            Fault::Us,
            Retry::After(Duration::from_secs_f64(wait.clamp(1.0, 120.0))),
            format!("{} tokens wait for this model already; retry later", self.waiting_tokens),
        )
    }
}
