//! Selection of the best scores. Most scores are rejected by one comparison with a threshold.

/// Keeps the best rows seen so far.
#[derive(Debug)]
pub(super) struct TopK {
    count: usize,
    /// Candidates with their scores, fewer than twice `count`. The best `count` are always among them.
    kept: Vec<(f32, u32)>,
    /// Score of the last of the best; a candidate must be above it.
    threshold: f32,
}

impl TopK {
    pub(super) fn new(count: usize) -> Self {
        let count = count.max(1);
        Self { count, kept: Vec::with_capacity(count * 2), threshold: f32::NEG_INFINITY }
    }

    /// Offers the scores of consecutive rows, of which `first` is the first.
    pub(super) fn offer(&mut self, first: usize, scores: &[f32]) {
        for (offset, &score) in scores.iter().enumerate() {
            if score > self.threshold {
                self.kept.push((score, (first + offset) as u32));
                if self.kept.len() == self.count * 2 {
                    self.prune();
                }
            }
        }
    }

    /// Adds the candidates of another selection.
    pub(super) fn merge(&mut self, other: Self) {
        for (score, row) in other.kept {
            self.offer(row as usize, &[score]);
        }
    }

    /// Returns the best rows, best first. Of equal scores the lower row comes first.
    pub(super) fn into_rows(mut self) -> Vec<u32> {
        self.kept.sort_unstable_by(by_score);
        self.kept.truncate(self.count);
        self.kept.into_iter().map(|(_, row)| row).collect()
    }

    /// Drops all but the best `count` and raises the threshold.
    fn prune(&mut self) {
        let (_, last, _) = self.kept.select_nth_unstable_by(self.count - 1, by_score);
        self.threshold = last.0;
        self.kept.truncate(self.count);
    }
}

/// Orders by score, descending, then by row.
fn by_score(a: &(f32, u32), b: &(f32, u32)) -> std::cmp::Ordering {
    b.0.total_cmp(&a.0).then(a.1.cmp(&b.1))
}
