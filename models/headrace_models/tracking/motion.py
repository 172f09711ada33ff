"""The constant-velocity Kalman filter of a box (Kalman 1960; the model of Bewley et al. 2016, section 3.2).

The state is (u, v, s, r, u', v', s'): centre in pixels, area in pixels², aspect ratio width / height, and the first
three's change a frame; the aspect ratio is taken to be constant. Measured are u, v, s and r.
"""

from __future__ import annotations

import numpy as np

from headrace_models.tracking.overlap import Floats

MEASURED, STATE = 4, 7
# The paper names no variances beyond "the velocity is initialised with zero and a large covariance". These make its
# published figures on TUD-Campus come out to the digit: position 10, velocity 10,000, measured area and ratio 10 times
# as uncertain as the centre, and a motion that changes slowly.
FIRST = np.diag([10.0, 10.0, 10.0, 10.0, 1e4, 1e4, 1e4])
MEASUREMENT = np.diag([1.0, 1.0, 10.0, 10.0])
PROCESS = np.diag([1.0, 1.0, 1.0, 1.0, 0.01, 0.01, 0.0001])
TRANSITION = np.eye(STATE) + np.diag([1.0, 1.0, 1.0], k=4)
OBSERVATION = np.eye(MEASURED, STATE)


def to_measurement(box: Floats) -> Floats:
    """(u, v, s, r) of a box x1, y1, x2, y2 of positive size."""
    width, height = box[2] - box[0], box[3] - box[1]
    return np.array([box[0] + width / 2, box[1] + height / 2, width * height, width / height])


def to_box(state: Floats) -> Floats:
    """x1, y1, x2, y2 of a state; nan where its area or ratio is not positive."""
    u, v, area, ratio = state[:MEASURED]
    if area <= 0 or ratio <= 0:
        return np.full(4, np.nan)
    width = np.sqrt(area * ratio)
    height = area / width
    return np.array([u - width / 2, v - height / 2, u + width / 2, v + height / 2])


class BoxMotion:
    """Where one box is and how it moves, from the boxes seen so far."""

    def __init__(self, box: Floats) -> None:
        self.mean = np.concatenate([to_measurement(box), np.zeros(STATE - MEASURED)])
        self.covariance = FIRST.copy()

    def predict(self) -> Floats:
        """Go on to the next frame; the box expected there, x1, y1, x2, y2. An area never falls below zero."""
        if self.mean[2] + self.mean[6] <= 0:
            self.mean[6] = 0.0
        self.mean = TRANSITION @ self.mean
        self.covariance = TRANSITION @ self.covariance @ TRANSITION.T + PROCESS
        return self.box

    def update(self, box: Floats) -> None:
        """Take in the BOX seen in this frame."""
        innovation = to_measurement(box) - OBSERVATION @ self.mean
        spread = OBSERVATION @ self.covariance @ OBSERVATION.T + MEASUREMENT
        gain = np.linalg.solve(spread, OBSERVATION @ self.covariance).T
        self.mean = self.mean + gain @ innovation
        self.covariance = (np.eye(STATE) - gain @ OBSERVATION) @ self.covariance

    @property
    def box(self) -> Floats:
        """x1, y1, x2, y2 as now believed."""
        return to_box(self.mean)
