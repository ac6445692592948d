//! Vectors in memory, one byte a number, and the scan over them. The scan finds candidates, a few more than asked
//! for; their order is then decided with the exact vectors. A quarter of the memory of f32, and a scan is as fast
//! as memory can be read.
//!
//! A row is the vector brought to unit length and divided by its own scale, the largest component over 127. The
//! query keeps two bytes a number: its coarse part and what the coarse part leaves over. Only the rows' rounding
//! is left as error, and it costs no time, because the scan waits for memory anyway.

mod kernels;
mod quantised;
mod top_k;

pub(crate) use kernels::Kernel;
use kernels::Rows;
use quantised::{CacheLine, LINE, QuantisedQuery};
use top_k::TopK;

/// Vectors of one collection.
#[derive(Debug)]
pub(crate) struct Matrix {
    dim: usize,
    /// Lines of 64 bytes in a row.
    width: usize,
    /// Ascending.
    ids: Vec<i64>,
    documents: Vec<i64>,
    scales: Vec<f32>,
    codes: Vec<CacheLine>,
}

/// Below this many bytes a second thread costs more than it brings.
const BYTES_PER_THREAD: usize = 24 << 20;

/// Rows that are scored before the best of them are looked for.
const BLOCK: usize = 512;

/// How to scan.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scan<'a> {
    /// How many candidates.
    pub(crate) top: usize,
    /// Documents that count, as bits by document number; `None`: all.
    pub(crate) mask: Option<&'a [u64]>,
    /// Threads that may help.
    pub(crate) threads: usize,
    /// The machine code.
    pub(crate) kernel: Kernel,
}

impl Matrix {
    /// Without rows.
    pub(crate) fn new(dim: usize) -> Self {
        let width = dim.div_ceil(LINE);
        Self { dim, width, ids: vec![], documents: vec![], scales: vec![], codes: vec![] }
    }

    /// Makes room, so that growing does not copy.
    pub(crate) fn make_room(&mut self, rows: usize) {
        self.ids.reserve_exact(rows);
        self.documents.reserve_exact(rows);
        self.scales.reserve_exact(rows);
        self.codes.reserve_exact(rows * self.width);
    }

    /// Adds a row; ids must ascend.
    pub(crate) fn push(&mut self, id: i64, document: i64, vector: &[f32]) {
        debug_assert!(self.ids.last().is_none_or(|last| *last < id) && vector.len() == self.dim);
        self.ids.push(id);
        self.documents.push(document);
        self.scales.push(quantised::push_row(vector, self.width, &mut self.codes));
    }

    /// Keeps the rows whose ids are in this ascending list.
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

    /// How many rows there are.
    pub(crate) fn len(&self) -> usize {
        self.ids.len()
    }

    /// Whether there are none.
    pub(crate) fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    /// The highest id.
    pub(crate) fn last_id(&self) -> Option<i64> {
        self.ids.last().copied()
    }

    /// Memory that is used.
    pub(crate) fn bytes(&self) -> usize {
        self.codes.capacity() * LINE
            + self.ids.capacity() * 8
            + self.documents.capacity() * 8
            + self.scales.capacity() * 4
    }

    /// Memory that so many rows take.
    pub(crate) fn bytes_of(rows: usize, dim: usize) -> usize {
        rows * (dim.div_ceil(LINE) * LINE + 20)
    }

    /// Ids of the rows nearest to `query`, nearest first, by scores that are nearly right.
    pub(crate) fn candidates(&self, query: &[f32], scan: Scan<'_>) -> Vec<i64> {
        let query = QuantisedQuery::new(query, self.width);
        let bytes = self.codes.len() * LINE;
        let threads = scan.threads.min(bytes / BYTES_PER_THREAD).max(1);
        let share = self.ids.len().div_ceil(threads).max(1);
        let mut best = TopK::new(scan.top);
        if threads == 1 {
            self.scan(0..self.ids.len(), (&query, scan), &mut best);
        } else {
            std::thread::scope(|scope| {
                let helpers: Vec<_> = (0..threads)
                    .map(|part| {
                        let rows = part * share..((part + 1) * share).min(self.ids.len());
                        let query = &query;
                        scope.spawn(move || {
                            let mut best = TopK::new(scan.top);
                            self.scan(rows, (query, scan), &mut best);
                            best
                        })
                    })
                    .collect();
                for helper in helpers {
                    // A helper does not panic; if one did, its rows would be missing and nobody would know.
                    match helper.join() {
                        Ok(part) => best.merge(part),
                        Err(panic) => std::panic::resume_unwind(panic),
                    }
                }
            });
        }
        best.into_rows().into_iter().map(|row| self.ids[row as usize]).collect()
    }

    fn scan(
        &self,
        rows: std::ops::Range<usize>,
        (query, scan): (&QuantisedQuery, Scan<'_>),
        best: &mut TopK,
    ) {
        let mut scores = [0.0; BLOCK];
        let part = |from: usize, to: usize| Rows {
            lines: &self.codes[from * self.width..to * self.width],
            scales: &self.scales[from..to],
        };
        match scan.mask {
            None => {
                let mut from = rows.start;
                while from < rows.end {
                    let to = (from + BLOCK).min(rows.end);
                    let scores = &mut scores[..to - from];
                    scan.kernel.score(query, part(from, to), scores);
                    best.offer(from, scores);
                    from = to;
                }
            }
            Some(mask) => {
                for row in rows {
                    let document = self.documents[row] as usize;
                    if mask.get(document / 64).is_some_and(|bits| bits >> (document % 64) & 1 == 1) {
                        let score = &mut scores[..1];
                        scan.kernel.score(query, part(row, row + 1), score);
                        best.offer(row, score);
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
