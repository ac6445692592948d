//! The best few of many scores. Most are refused by one comparison.

/// Keeps the best rows seen so far.
#[derive(Debug)]
pub(super) struct TopK {
    wanted: usize,
    /// At least the `wanted` best; now and then cut back to them.
    kept: Vec<(f32, u32)>,
    /// What a score must beat.
    threshold: f32,
}

impl TopK {
    pub(super) fn new(wanted: usize) -> Self {
        let wanted = wanted.max(1);
        Self { wanted, kept: Vec::with_capacity(wanted * 2), threshold: f32::NEG_INFINITY }
    }

    /// Looks at the scores of rows from `first` on.
    pub(super) fn offer(&mut self, first: usize, scores: &[f32]) {
        for (offset, &score) in scores.iter().enumerate() {
            if score > self.threshold {
                self.kept.push((score, (first + offset) as u32));
                if self.kept.len() == self.wanted * 2 {
                    self.cut();
                }
            }
        }
    }

    pub(super) fn merge(&mut self, other: Self) {
        for (score, row) in other.kept {
            self.offer(row as usize, &[score]);
        }
    }

    /// The best rows, best first; of equal scores the older.
    pub(super) fn into_rows(mut self) -> Vec<u32> {
        self.kept.sort_unstable_by(better);
        self.kept.truncate(self.wanted);
        self.kept.into_iter().map(|(_, row)| row).collect()
    }

    fn cut(&mut self) {
        let (_, last, _) = self.kept.select_nth_unstable_by(self.wanted - 1, better);
        self.threshold = last.0;
        self.kept.truncate(self.wanted);
    }
}

fn better(a: &(f32, u32), b: &(f32, u32)) -> std::cmp::Ordering {
    b.0.total_cmp(&a.0).then(a.1.cmp(&b.1))
}
