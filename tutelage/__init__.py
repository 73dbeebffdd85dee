"""The pure core of tutelage: privileged views, distillation and the verdict. It knows neither Prefect nor MLflow."""
