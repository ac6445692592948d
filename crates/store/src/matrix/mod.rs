//! Vectors in memory, quantised to one byte per number, and the scan over them. The scan returns candidates, a few more
//! than the caller wants; the caller ranks them by the exact vectors. The matrix takes a quarter of the memory of f32,
//! and the scan runs at the speed of memory.
//!
//! A row is the vector brought to unit length and divided by the row's scale, which is its largest absolute component
//! over 127. The query takes two bytes per number: a coarse code and a fine code for the remainder. So the error of a
//! score comes from the rounding of the rows alone. The second byte costs no time, because the scan waits for memory.

mod kernels;
mod quantised;
mod top_k;

pub(crate) use kernels::Kernel;
use kernels::Rows;
use quantised::{CacheLine, LINE_BYTES, QuantisedQuery};
use top_k::TopK;

/// The quantised vectors of one generation.
#[derive(Debug)]
pub(crate) struct Matrix {
    dim: usize,
    /// Cache lines per row.
    width: usize,
    /// Vector ids, ascending.
    ids: Vec<i64>,
    documents: Vec<i64>,
    scales: Vec<f32>,
    codes: Vec<CacheLine>,
}

/// Minimum bytes per thread. With fewer, starting another thread costs more time than it saves.
const MIN_BYTES_PER_THREAD: usize = 24 << 20;

/// Rows that are scored before their scores are offered to the best.
const ROWS_PER_BLOCK: usize = 512;

/// Parameters of a scan.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scan<'a> {
    /// Maximum number of candidates.
    pub(crate) top: usize,
    /// Documents to scan, as a bit set over document ids; `None` scans all.
    pub(crate) mask: Option<&'a [u64]>,
    /// Maximum number of threads.
    pub(crate) threads: usize,
    /// Implementation of the scores.
    pub(crate) kernel: Kernel,
}

impl Matrix {
    /// A matrix without rows.
    pub(crate) fn new(dim: usize) -> Self {
        let width = dim.div_ceil(LINE_BYTES);
        Self { dim, width, ids: vec![], documents: vec![], scales: vec![], codes: vec![] }
    }

    /// Reserves memory for further rows, so that adding them does not copy the matrix.
    pub(crate) fn reserve(&mut self, rows: usize) {
        self.ids.reserve_exact(rows);
        self.documents.reserve_exact(rows);
        self.scales.reserve_exact(rows);
        self.codes.reserve_exact(rows * self.width);
    }

    /// Adds a row. Its id must be higher than all ids before.
    pub(crate) fn push(&mut self, id: i64, document: i64, vector: &[f32]) {
        debug_assert!(self.ids.last().is_none_or(|last| *last < id) && vector.len() == self.dim);
        self.ids.push(id);
        self.documents.push(document);
        self.scales.push(quantised::push_row(vector, self.width, &mut self.codes));
    }

    /// Keeps the rows whose ids are in `ids`, an ascending list, and removes the others.
    pub(crate) fn retain(&mut self, ids: &[i64]) {
        let mut wanted = ids.iter().peekable();
        let mut kept = 0;
        for row in 0..self.ids.len() {
            while wanted.next_if(|id| **id < self.ids[row]).is_some() {}
            if wanted.peek() != Some(&&self.ids[row]) {
                continue;
            }
            self.ids[kept] = self.ids[row];
            self.documents[kept] = self.documents[row];
            self.scales[kept] = self.scales[row];
            self.codes.copy_within(row * self.width..(row + 1) * self.width, kept * self.width);
            kept += 1;
        }
        self.ids.truncate(kept);
        self.documents.truncate(kept);
        self.scales.truncate(kept);
        self.codes.truncate(kept * self.width);
    }

    /// Number of rows.
    pub(crate) fn len(&self) -> usize {
        self.ids.len()
    }

    /// Whether the matrix has no rows.
    pub(crate) fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    /// The highest id.
    pub(crate) fn last_id(&self) -> Option<i64> {
        self.ids.last().copied()
    }

    /// Memory that the matrix has allocated.
    pub(crate) fn bytes(&self) -> usize {
        self.codes.capacity() * LINE_BYTES
            + self.ids.capacity() * 8
            + self.documents.capacity() * 8
            + self.scales.capacity() * 4
    }

    /// Memory that `rows` rows take.
    pub(crate) fn estimate_bytes(rows: usize, dim: usize) -> usize {
        rows * (dim.div_ceil(LINE_BYTES) * LINE_BYTES + 20)
    }

    /// Returns the ids of the rows nearest to `query`, nearest first by approximate score.
    pub(crate) fn candidates(&self, query: &[f32], scan: Scan<'_>) -> Vec<i64> {
        let query = QuantisedQuery::new(query, self.width);
        let bytes = self.codes.len() * LINE_BYTES;
        let threads = scan.threads.min(bytes / MIN_BYTES_PER_THREAD).max(1);
        let rows_per_thread = self.ids.len().div_ceil(threads).max(1);
        let mut best = TopK::new(scan.top);
        if threads == 1 {
            self.scan(0..self.ids.len(), &query, scan, &mut best);
        } else {
            std::thread::scope(|scope| {
                let threads: Vec<_> = (0..threads)
                    .map(|part| {
                        let rows = part * rows_per_thread..((part + 1) * rows_per_thread).min(self.ids.len());
                        let query = &query;
                        scope.spawn(move || {
                            let mut best = TopK::new(scan.top);
                            self.scan(rows, query, scan, &mut best);
                            best
                        })
                    })
                    .collect();
                for thread in threads {
                    // Without its rows the result would be wrong, so a panic of the thread goes on here.
                    match thread.join() {
                        Ok(part) => best.merge(part),
                        Err(panic) => std::panic::resume_unwind(panic),
                    }
                }
            });
        }
        best.into_rows().into_iter().map(|row| self.ids[row as usize]).collect()
    }

    /// Scores these rows and offers the scores to `best`.
    fn scan(&self, rows: std::ops::Range<usize>, query: &QuantisedQuery, scan: Scan<'_>, best: &mut TopK) {
        let mut scores = [0.0; ROWS_PER_BLOCK];
        let range = |from: usize, to: usize| Rows {
            lines: &self.codes[from * self.width..to * self.width],
            scales: &self.scales[from..to],
        };
        match scan.mask {
            None => {
                let mut from = rows.start;
                while from < rows.end {
                    let to = (from + ROWS_PER_BLOCK).min(rows.end);
                    let scores = &mut scores[..to - from];
                    scan.kernel.score(query, range(from, to), scores);
                    best.offer(from, scores);
                    from = to;
                }
            }
            Some(mask) => {
                for row in rows {
                    let document = self.documents[row] as usize;
                    if mask.get(document / 64).is_some_and(|bits| bits >> (document % 64) & 1 == 1) {
                        let score = &mut scores[..1];
                        scan.kernel.score(query, range(row, row + 1), score);
                        best.offer(row, score);
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
