"""The file that MLflow runs to make the served model (models-from-code): raw bars in, predictions out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
from mlflow.exceptions import MlflowException
from mlflow.models import set_model
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE
from mlflow.pyfunc import PythonModel

from barcast.errors import BarcastError
from barcast.serving.predictor import Predictor


class ServedModel(PythonModel):  # type: ignore[misc]
    """`Predictor` behind MLflow's interface; a refused request becomes HTTP 400 with the reason."""

    def load_context(self, context: Any) -> None:
        """Load the bundle and predict once, so that the first caller doesn't wait for compilers."""
        self._predictor = Predictor(Path(context.artifacts["registry"]) / "model")
        self._predictor.warm_up()

    def predict(self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None) -> pd.DataFrame:
        """Predict as `Predictor.predict` does; `params` may contain `last_only`."""
        most = self._predictor.config.max_request_rows
        try:
            if len(model_input) > most:
                raise BarcastError(
                    f"request: {len(model_input):,} bars, at most {most:,} are allowed; send the last "
                    f"{self._predictor.config.exact_bars:,} of each symbol, or use `barcast predict` for files"
                )
            return self._predictor.predict(model_input, last_only=bool((params or {}).get("last_only", False)))
        except BarcastError as error:
            raise MlflowException(str(error), error_code=INVALID_PARAMETER_VALUE) from None


set_model(ServedModel())
